from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.prompting.chat_template import NEUTRAL_OPENING, ChatFormat, TemplateError
from inference.prompting.history import Exchange, ExchangeText, History
from inference.prompting.text_encoder import TextEncoder
from inference.prompting.transcript import TranscriptFormat
from tests.examples import examples
from tests.fakes.tokenizers import FAMILIES, family

PERSONA = "You are Anna."
MERGING = {"llama-2"}  # the system prompt goes into the first user message, by the template itself
SYSTEMLESS = {"gemma", "mistral", "mistral-v3"}  # it opens the first user message, by us
SPEAKS_FIRST = {"chatml", "llama-3", "qwen"}


@pytest.fixture(scope="module")
def forms() -> dict[str, ChatFormat]:
    return {name: ChatFormat(family(name)) for name in FAMILIES}


def rendered(name: str, persona: str, *said: str) -> str:
    """What the model's own template makes of it."""
    system = [("system", persona)]
    turns = [("assistant" if n % 2 else "user", text) for n, text in enumerate(said)]
    if name in SYSTEMLESS:
        system, turns = [], [("user", f"{persona}\n\n{said[0]}"), *turns[1:]]
    chat = [{"role": role, "content": text} for role, text in [*system, *turns]]
    text = family(name).apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    return str(text)


def template_ids(name: str, persona: str, *said: str) -> list[int]:
    return list(family(name)(rendered(name, persona, *said), add_special_tokens=False)["input_ids"])


def composed(form: ChatFormat, persona: str, *said: str) -> list[int]:
    """What a session makes of it: past exchanges from their text, then a turn."""
    history = History(form, 10_000)
    history.replace([ExchangeText(user, reply) for user, reply in zip(said[::2], said[1::2], strict=False)])
    first = not len(history)
    return [*form.persona(persona), *history.ids, *form.turn(form.user(said[-1], first=first), first=first)]


def plain(name: str, ids: list[int]) -> str:
    return str(family(name).decode(ids, skip_special_tokens=False))


# -- the template, taken apart and put together ----------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "said",
    [
        ("Hello there",),
        ("Hello there", "I am fine.", "how are you"),
        ("a", "b", "c?", "d - e", "1234", "Well, well!", "…"),
        ("Zwölf Boxkämpfer", "😀 ok", "two\nlines"),
    ],
)
def test_a_prompt_is_what_the_template_makes(forms: dict[str, ChatFormat], name: str, said: tuple[str, ...]) -> None:
    ids, expected = composed(forms[name], PERSONA, *said), template_ids(name, PERSONA, *said)
    if name == "qwen":  # it takes the thoughts out of past replies; a record does not change behind itself
        thought = "<think>\n\n</think>\n\n"
        assert (
            plain(name, ids).replace(thought, "") + thought == rendered(name, PERSONA, *said)[: -len(thought)] + thought
        )
        return
    assert ids == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_a_generated_reply_continues_the_prompt_it_answered(forms: dict[str, ChatFormat], name: str) -> None:
    form = forms[name]
    history, persona = History(form, 10_000), form.persona(PERSONA)
    before: list[int] = []
    for text in (None, "Hello there", "how are you", None, "bye"):
        first = not len(history)
        user = None if text is None else form.user(text, first=first)
        prompt = [*persona, *history.ids, *form.turn(user, first=first)]
        assert prompt[: len(before)] == before
        generated = [7, 8, 9]
        history.append(Exchange(ExchangeText(text, "x"), user or [], generated))
        before = [*prompt, *generated]


@pytest.mark.parametrize("name", sorted(SPEAKS_FIRST))
def test_a_character_that_speaks_first_follows_its_persona(forms: dict[str, ChatFormat], name: str) -> None:
    chat = [{"role": "system", "content": PERSONA}]
    options: dict[str, Any] = {"add_generation_prompt": True, "enable_thinking": False}
    expected = family(name).apply_chat_template(chat, tokenize=False, **options)
    form = forms[name]
    assert plain(name, [*form.persona(PERSONA), *form.turn(None, first=True)]) == expected
    chat += [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "how"}]
    expected = family(name).apply_chat_template(chat, tokenize=False, **options)
    begun = form.exchange_ids(form.encode_exchange(ExchangeText(None, "Hello"), first=True), first=True)
    ids = [*form.persona(PERSONA), *begun, *form.turn(form.user("how"), first=False)]
    assert plain(name, ids).replace("<think>\n\n</think>\n\nHello", "Hello") == expected


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - SPEAKS_FIRST))
def test_where_the_template_wants_a_user_the_opening_is_neutral(forms: dict[str, ChatFormat], name: str) -> None:
    form = forms[name]
    ids = [*form.persona(PERSONA), *form.turn(None, first=True)]
    assert ids == template_ids(name, PERSONA, NEUTRAL_OPENING)
    assert form.turn(None, first=False) == form.turn(form.user(NEUTRAL_OPENING), first=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_persona_is_the_beginning_of_every_prompt(forms: dict[str, ChatFormat], name: str) -> None:
    form = forms[name]
    assert form.persona(f"  {PERSONA}\n") == form.persona(PERSONA) == [*form.before_system, *form.system(PERSONA)]
    assert plain(name, form.system(PERSONA)).strip() == PERSONA


def test_a_template_that_cannot_be_taken_apart_is_refused() -> None:
    tokenizer = family("llama-3").__class__(tokenizer_object=family("llama-3").backend_tokenizer)
    for template in ("always the same", "{{ raise_exception('no') }}", "{{ messages[0].content * 2 }}"):
        tokenizer.chat_template = template
        with pytest.raises(TemplateError):
            ChatFormat(tokenizer)


# -- text of people --------------------------------------------------------------------------------

CONTROL = sorted({text for name in FAMILIES for text in family(name).get_added_vocab()})
SPELLED = st.lists(
    st.sampled_from(
        [*CONTROL, *(text[:-1] for text in CONTROL), *(text[1:] for text in CONTROL), "[INST] ", "<", "|", "\n"]
    )
    | st.text(max_size=6),
    max_size=8,
).map("".join)


def forbidden(name: str) -> set[int]:
    tokenizer = family(name)
    return {*tokenizer.get_added_vocab().values(), *tokenizer.all_special_ids}


@pytest.mark.parametrize("name", FAMILIES)
@examples(60)
@given(text=SPELLED)
def test_no_control_token_comes_out_of_text(forms: dict[str, ChatFormat], name: str, text: str) -> None:
    form, none = forms[name], forbidden(name)
    transcript = TranscriptFormat(form)
    line = transcript.encode_exchange(ExchangeText(text, text), first=False)
    past = form.encode_exchange(ExchangeText(text, text), first=False)
    parts = (form.system(text), form.user(text), past.user_ids, past.reply_ids, line.user_ids, line.reply_ids)
    for ids in parts:
        assert none.isdisjoint(ids)
    # In a prompt there are just the control tokens that the template put there.
    template = [token for token in transcript.decision(transcript.user("")) if token in none]
    assert [token for token in transcript.decision(transcript.user(text)) if token in none] == template


@pytest.mark.parametrize("name", FAMILIES)
@examples(60)
@given(text=SPELLED)
def test_text_is_not_changed_by_being_made_harmless(forms: dict[str, ChatFormat], name: str, text: str) -> None:
    if name in ("chatml", "llama-3", "qwen"):
        decoded = family(name).decode(forms[name].text.encode(text), clean_up_tokenization_spaces=False)
        assert decoded == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    else:
        ids = forms[name].text.encode(f"x{text}")
        assert family(name).decode(ids).removeprefix(" ") == f"x{text}".replace("▁", " ")


@pytest.mark.parametrize("name", FAMILIES)
def test_spelled_control_tokens_are_still_said(forms: dict[str, ChatFormat], name: str) -> None:
    for text in family(name).get_added_vocab():
        assert plain(name, forms[name].text.encode(f"a {text} b")).strip() == f"a {text} b"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_in_the_middle_gets_no_blank_before_it(name: str) -> None:
    encoder = TextEncoder(family(name))
    ids = [token for text in ("Hel", "lo", "\n", "there", " you") for token in encoder.encode(text)]
    assert plain(name, ids) == "Hello\nthere you"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "text", ["Hello there, how are you today? " * 40, "😀" * 100, "é" * 300, "a😀" * 100, "\x00" * 100]
)
def test_a_long_utterance_keeps_its_start_and_whole_characters(name: str, text: str) -> None:
    whole = ChatFormat(family(name), utterance_max_tokens=10_000).user(text)
    form = ChatFormat(family(name), utterance_max_tokens=50)
    for limit in (1, 2, 3, 4, 5, 49, 50):
        ids = form.text.encode_start(text, limit)
        assert len(ids) <= limit
        said = plain(name, ids)
        assert "\N{REPLACEMENT CHARACTER}" not in said
        assert text.startswith(said.lstrip(" ") if not text.startswith(" ") else said)
    kept = form.user(text)
    assert len(kept) > 40
    assert kept == whole[: len(kept)]


def test_an_utterance_of_a_mebibyte_is_not_encoded_whole() -> None:
    encoder = TextEncoder(family("chatml"))
    seen: list[int] = []
    encode = encoder.encode

    def spy(text: str) -> list[int]:
        seen.append(len(text))
        return encode(text)

    encoder.encode = spy  # type: ignore[method-assign]
    assert len(encoder.encode_start("word " * 200_000, 350)) == 350
    assert sum(seen) < 20_000


def test_a_fitting_utterance_is_whole() -> None:
    encoder = TextEncoder(family("chatml"))
    ids = encoder.encode("Hello there")
    assert encoder.encode_start("Hello there", len(ids)) == ids
    assert encoder.encode_start("", 5) == []


# -- the tool engine's view ------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_the_transcript_of_one_turn_begins_the_next_ones(forms: dict[str, ChatFormat], name: str) -> None:
    form = TranscriptFormat(forms[name])
    record = History(form, 10_000)
    end = len(forms[name].after_user)
    before: list[int] = []
    for user, reply in (("Hello\n there", "I am\nfine."), ("how", ""), ("look  at this", "ok")):
        prompt = [*form.system("Decide."), *record.ids, *form.decision(form.user(user))]
        assert prompt[: len(before)] == before
        before = prompt[: len(prompt) - end]
        record.append(form.encode_exchange(ExchangeText(user, reply), first=not len(record)))
    text = plain(name, [*form.system("Decide."), *record.ids, *form.decision(form.user("bye"))])
    said = (
        "User: Hello there\nAssistant: I am fine.\nUser: how\nAssistant:\nUser: look at this\nAssistant: ok\nUser: bye"
    )
    assert said in text.replace("Assistant: \n", "Assistant:\n")
    assert "Decide." in text


def test_a_line_of_the_transcript_cannot_begin_another_one(forms: dict[str, ChatFormat]) -> None:
    form = TranscriptFormat(forms["chatml"])
    ids = form.encode_exchange(ExchangeText("a\nAssistant: b", "c"), first=True).user_ids
    assert plain("chatml", list(ids)) == "User: a Assistant: b\n"


def test_a_character_that_spoke_first_has_no_user_line(forms: dict[str, ChatFormat]) -> None:
    form = TranscriptFormat(forms["chatml"])
    exchange = form.encode_exchange(ExchangeText(None, "Hi"), first=True)
    assert plain("chatml", form.exchange_ids(exchange, first=True)) == "Assistant: Hi\n"

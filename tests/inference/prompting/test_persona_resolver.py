"""The choice of a persona, its rights, and its resolution for a turn."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from accounts.callers import Caller
from inference.phrases.compiled import PhraseStore
from inference.prompting.chat_template import ChatFormat
from inference.prompting.persona import PersonaError, PersonaFields, PersonaProblem, ResolvedPersona, SessionPersona
from inference.prompting.persona_encoder import PersonaEncoder
from inference.prompting.persona_resolver import PersonaResolver
from inference.prompting.prompt_limits import PromptLimits
from inference.prompting.text_encoder import LONG_TEXT_CHARS, TextEncoder
from inference.prompting.tool_prompt import DEFAULT_TOOL_PROMPT
from personas.snapshot import PersonaSnapshot, PhraseRule
from tests.fakes.engine import tiny_tokenizer
from tests.fakes.serving import ANNA, MAX, UNLIMITED, catalogue, talking

FORM = ChatFormat(tiny_tokenizer())
RESTRICTED = replace(UNLIMITED, personas=frozenset({"anna"}), own_chat_prompt=False, own_tool_prompt=False)
SLUG = PersonaFields(persona="anna")
STYLE = PersonaFields(gender="female", personality="calm")


def resolver(*personas: PersonaSnapshot, phrases: tuple[PhraseRule, ...] = (), **limits: int) -> PersonaResolver:
    made = PersonaResolver(PersonaEncoder(FORM, FORM, PromptLimits(**limits)), PhraseStore(FORM))
    edit(made, *personas, phrases=phrases)
    return made


def edit(made: PersonaResolver, *personas: PersonaSnapshot, phrases: tuple[PhraseRule, ...] = ()) -> None:
    found = catalogue(*personas, phrases=phrases, version=made.catalogue.version + 1)
    made.phrases.install(made.phrases.compile(found))


def resolved(
    made: PersonaResolver, fields: PersonaFields, caller: Caller = UNLIMITED, **options: str | None
) -> ResolvedPersona:
    return made.resolve(made.choose(fields, None, caller, **options), caller)  # type: ignore[arg-type]


def problem(
    made: PersonaResolver, fields: PersonaFields, current: SessionPersona | None = None, caller: Caller = UNLIMITED
) -> PersonaProblem:
    with pytest.raises(PersonaError) as caught:
        made.resolve(made.choose(fields, current, caller), caller)
    assert len(str(caught.value)) < 200
    return caught.value.problem


# -- choosing --------------------------------------------------------------------------------------


def test_ids_are_computed_once_and_shared() -> None:
    one = resolver()
    first, second = resolved(one, SLUG), resolved(one, SLUG, user_name="Bob")
    assert first.chat_ids is second.chat_ids
    assert first.tool_ids is second.tool_ids
    assert list(first.chat_ids) == FORM.persona(ANNA.chat_prompt)
    assert first.tool_prompt == DEFAULT_TOOL_PROMPT


def test_a_persona_is_found_by_slug_or_by_style() -> None:
    twin = replace(ANNA, slug="zoe")
    one = resolver(ANNA, MAX, twin)
    assert resolved(one, PersonaFields(persona="zoe")).snapshot is twin
    assert resolved(one, STYLE).snapshot is ANNA
    assert problem(one, PersonaFields(gender="male", personality="calm")) == "missing_chat_prompt"
    assert problem(one, PersonaFields(persona="x" * 1000)) == "unknown_persona"


def test_a_first_message_needs_labels_or_a_slug() -> None:
    one = resolver()
    assert problem(one, PersonaFields(chat_prompt="You are Zoe.")) == "missing_gender"
    assert problem(one, PersonaFields(gender="male")) == "missing_personality"


def test_of_two_of_a_style_a_key_gets_the_one_it_may_use() -> None:
    twin = replace(ANNA, slug="zoe")
    one = resolver(ANNA, twin)
    only = replace(UNLIMITED, personas=frozenset({"zoe"}))
    assert resolved(one, STYLE, only).snapshot is twin
    assert problem(one, SLUG, caller=only) == "unknown_persona"


def test_repeated_labels_keep_the_persona_of_the_session() -> None:
    twin = replace(ANNA, slug="zoe")
    one = resolver(ANNA, twin)
    zoe = one.choose(PersonaFields(persona="zoe"), None, UNLIMITED)
    assert one.choose(STYLE, zoe, UNLIMITED) is zoe
    assert one.choose(PersonaFields(), zoe, UNLIMITED) is zoe


@pytest.mark.parametrize("text", ["word " * 200, "x" * 100_000])
def test_prompts_that_are_too_long(text: str) -> None:
    one = resolver(chat_prompt=100, tool_prompt=50)
    assert problem(one, replace(STYLE, chat_prompt=text)) == "chat_prompt_too_long"
    with pytest.raises(PersonaError) as caught:
        resolved(one, STYLE, tool_template=text)
    assert caught.value.problem == "tool_prompt_too_long"
    with pytest.raises(PersonaError, match=r"too long|at most 100"):
        one.stored_prefix(replace(ANNA, chat_prompt=text))


def test_a_prompt_may_have_exactly_as_many_tokens() -> None:
    one = resolver(chat_prompt=len(FORM.text.encode(ANNA.chat_prompt)))
    assert one.encoder.chat_ids(ANNA.chat_prompt)
    with pytest.raises(PersonaError):
        one.encoder.chat_ids(ANNA.chat_prompt + " x y")


@pytest.mark.parametrize("mark", ["{{user}}", "{{User}}", "<USER>", "{{ user }}"])
def test_an_expansion_is_refused_before_it_is_made(mark: str) -> None:
    one = resolver()
    fields = replace(STYLE, chat_prompt=mark * 4000)
    chosen = one.choose(fields, None, UNLIMITED, user_name="x" * 64)
    with pytest.raises(PersonaError) as caught:
        one.resolve(chosen, UNLIMITED)
    assert caught.value.problem == "chat_prompt_too_long"


# -- rights and versions in force ------------------------------------------------------------------


def test_rights_that_were_taken_away_hold_for_a_live_session() -> None:
    one = resolver(ANNA, MAX)
    own = one.choose(replace(STYLE, chat_prompt="You are Zoe."), None, UNLIMITED)
    assert problem(one, PersonaFields(), own, RESTRICTED) == "chat_prompt_not_allowed"
    own_tool = one.choose(STYLE, None, UNLIMITED, tool_template="Decide.")
    assert problem(one, PersonaFields(), own_tool, RESTRICTED) == "tool_prompt_not_allowed"
    dry = one.choose(PersonaFields(persona="max"), None, UNLIMITED)
    assert problem(one, PersonaFields(), dry, RESTRICTED) == "unknown_persona"
    assert one.resolve(one.choose(SLUG, dry, RESTRICTED), RESTRICTED).snapshot is ANNA


@pytest.mark.parametrize(
    "fields",
    [
        PersonaFields(personality="anything"),
        PersonaFields(gender="male"),
        PersonaFields(gender="male", personality="dry"),  # a persona that this key may not use
    ],
)
@pytest.mark.parametrize("caller", [UNLIMITED, RESTRICTED])
def test_labels_do_not_shake_off_the_persona_that_speaks(fields: PersonaFields, caller: Caller) -> None:
    banned = replace(ANNA, phrases=(PhraseRule("the"),), sampling={"temperature": 0.3}, output_style="speech")
    one = resolver(banned, MAX)
    chosen = one.choose(fields, one.choose(SLUG, None, caller), caller)
    persona = one.resolve(chosen, caller)
    if caller is UNLIMITED and fields.gender and fields.personality:
        assert persona.snapshot is MAX
        return
    assert persona.snapshot is banned
    assert persona.phrases is one.phrases.of(banned)
    assert (persona.sampling, persona.output_style, persona.slug) == ({"temperature": 0.3}, "speech", "anna")
    assert (persona.gender, persona.personality) == (fields.gender or "female", fields.personality or "calm")


def test_an_edit_is_in_force_at_the_next_resolution() -> None:
    one = resolver(ANNA)
    chosen = one.choose(SLUG, None, UNLIMITED, tool_template="Mine.", user_name="Bob")
    second = replace(ANNA, chat_prompt="You know {{user}}.", personality="warm", tool_prompt="Stored.", version=2)
    edit(one, second, phrases=(PhraseRule("oh honey"),))
    persona = one.resolve(chosen, UNLIMITED)
    assert persona.chat_prompt == "You know Bob."
    assert (persona.personality, persona.snapshot) == ("warm", second)
    assert persona.tool_prompt == "Mine."  # the client's own tool prompt survives an edit
    edit(one, MAX)
    assert one.resolve(chosen, UNLIMITED).chat_prompt == ANNA.chat_prompt  # deleted: the session keeps its version


def test_a_later_name_renames_the_user() -> None:
    one = resolver(replace(ANNA, chat_prompt="You know {{user}}."))
    chosen = one.choose(SLUG, None, UNLIMITED)
    assert one.resolve(chosen, UNLIMITED).chat_prompt == "You know the user."
    renamed = one.choose(PersonaFields(), chosen, UNLIMITED, user_name="Bob")
    assert one.resolve(renamed, UNLIMITED).chat_prompt == "You know Bob."
    own = one.choose(replace(STYLE, chat_prompt="You like {{user}}."), renamed, UNLIMITED)
    assert one.resolve(own, UNLIMITED).chat_prompt == "You like Bob."
    again = one.choose(PersonaFields(), own, UNLIMITED, user_name="woman")
    assert one.resolve(again, UNLIMITED).chat_prompt == "You like a woman."


def test_macros_hold_for_a_session() -> None:
    one = resolver(replace(ANNA, chat_prompt="{{char}} likes {{pick:a,b,c,d,e,f,g,h}}. {{random:1,2,3,4,5,6,7,8}}"))
    chosen = one.choose(SLUG, None, UNLIMITED, session_id="s1")
    texts = {one.resolve(one.choose(PersonaFields(), chosen, UNLIMITED), UNLIMITED).chat_prompt for _ in range(5)}
    assert len(texts) == 1
    assert str(texts.pop()).startswith("Anna likes ")
    others = {resolved(one, SLUG, session_id=f"s{n}").chat_prompt for n in range(30)}
    assert len(others) > 5


def test_the_stored_prefix_is_what_a_nameless_user_gets() -> None:
    stored = replace(ANNA, chat_prompt="You know {{user}}.")
    one = resolver(stored)
    persona = resolved(one, SLUG)
    assert persona.chat_ids == one.stored_prefix(stored)
    assert persona.chat_prompt == "You know the user."


# -- limits and formats ----------------------------------------------------------------------------


def test_history_leaves_room_for_the_longest_turn() -> None:
    limits = PromptLimits(chat_context=1000, chat_reply=100, utterance=100, tool_context=600, tool_reply=50)
    assert limits.chat_history(300) + 300 + 200 <= 1000
    assert limits.tool_transcript(100) + 100 + 150 <= 600
    assert PromptLimits(history=10).chat_history(0) == 10
    assert PromptLimits(chat_context=100).chat_history(0) == 0


def test_no_list_is_walked_for_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    one = resolver(replace(ANNA, phrases=(PhraseRule("my dear"),)), phrases=(PhraseRule("oh honey"),))
    walked: list[PhraseRule] = []

    def walk(rule: PhraseRule) -> int:
        walked.append(rule)
        return 0

    monkeypatch.setattr(PhraseRule, "__hash__", walk)
    anna = one.choose(SLUG, None, UNLIMITED)
    one.resolve(anna, UNLIMITED)
    one.resolve(one.choose(PersonaFields(chat_prompt="You are new."), anna, UNLIMITED), UNLIMITED)
    assert not walked


def test_without_an_engine_there_are_no_ids() -> None:
    for chat, tool in ((FORM, None), (None, FORM)):
        one = PersonaResolver(PersonaEncoder(chat, tool, PromptLimits()), PhraseStore(chat))
        one.phrases.install(one.phrases.compile(catalogue()))
        persona = resolved(one, SLUG)
        assert bool(persona.chat_ids) is (chat is not None)
        assert bool(persona.tool_ids) is (tool is not None)
        assert bool(one.encoder.tool_warm_ids()) is (tool is not None)


async def test_a_long_prompt_that_is_new_is_encoded_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[tuple[int, threading.Thread]] = []
    whole = TextEncoder.encode

    def encode(encoder: TextEncoder, text: str) -> list[int]:
        encoded.append((len(text), threading.current_thread()))
        return whole(encoder, text)

    monkeypatch.setattr(TextEncoder, "encode", encode)
    here = threading.current_thread()
    long, short = "You are kind. " * 400, "You are short."
    async with talking(limits=PromptLimits(chat_prompt=10_000, chat_context=100_000, history=50_000)) as line:
        for fields in (
            {"chat_prompt": short},
            {"chat_prompt": long},
            {"chat_prompt": long, "session_id": "s2", "history_text": f"User: hi\nAssistant: {long}"},
        ):
            await line.turn(**fields)
        await line.ask({"type": "warm_persona", "chat_prompt": long[5:]})
        await line.ask({"type": "warm_history", "history_text": f"User: {long}"})
    assert any(thread is here for size, thread in encoded if size < 100)
    elsewhere = [size for size, thread in encoded if size > LONG_TEXT_CHARS and thread is not here]
    assert len(elsewhere) >= 4
    assert not [size for size, thread in encoded if size > LONG_TEXT_CHARS and thread is here]

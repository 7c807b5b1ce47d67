from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from inference.phrases.compiled import PhraseStore
from inference.prompting.chat_template import ChatFormat
from inference.prompting.persona_resolver import DEFAULT_USER_NAME, PersonaResolver, PromptLimits
from inference.prompting.text_encoder import LONG_TEXT_CHARS, TextEncoder
from inference.prompting.tool_prompt import DEFAULT_TOOL_PROMPT
from inference.protocol.errors import ProtocolError
from inference.protocol.messages import PersonaFields
from personas.snapshot import PersonaSnapshot, PhraseRule
from tests.fakes.engine import tiny_tokenizer
from tests.fakes.serving import ANNA, MAX, UNLIMITED, catalogue, talking

FORM = ChatFormat(tiny_tokenizer())


def resolver(*personas: PersonaSnapshot, phrases: tuple[PhraseRule, ...] = (), **limits: int) -> PersonaResolver:
    made = PersonaResolver(FORM, FORM, PromptLimits(**limits), PhraseStore(FORM))
    found = catalogue(*personas, phrases=phrases)
    made.phrases.install(made.phrases.compile(found))
    return made


def test_ids_are_computed_once_and_shared() -> None:
    one = resolver()
    first = one.character(PersonaFields(), snapshot=ANNA, before=None, tool_prompt=None, user_name=None)
    second = one.character(PersonaFields(), snapshot=ANNA, before=None, tool_prompt=None, user_name="Bob")
    assert first.chat_ids is second.chat_ids
    assert first.tool_ids is second.tool_ids
    assert list(first.chat_ids) == FORM.persona(ANNA.chat_prompt)
    assert first.tool_prompt == DEFAULT_TOOL_PROMPT


def test_a_persona_is_found_by_slug_or_by_style() -> None:
    twin = replace(ANNA, slug="zoe")
    one = resolver(ANNA, MAX, twin)
    assert one.stored(PersonaFields(persona="zoe"), None) is twin
    assert one.stored(PersonaFields(gender="female", personality="calm"), None) is ANNA
    assert one.stored(PersonaFields(gender="female"), None) is None
    assert one.stored(PersonaFields(gender="male", personality="calm"), None) is None
    with pytest.raises(ProtocolError) as caught:
        one.stored(PersonaFields(persona="x" * 1000), None)
    assert caught.value.code == "unknown_persona"
    assert len(caught.value.message) < 200


def test_of_two_of_a_style_a_key_gets_the_one_it_may_use() -> None:
    twin = replace(ANNA, slug="zoe")
    one = resolver(ANNA, twin)
    assert one.stored(PersonaFields(gender="female", personality="calm"), frozenset({"zoe"})) is twin
    with pytest.raises(ProtocolError):
        one.stored(PersonaFields(persona="anna"), frozenset({"zoe"}))


@pytest.mark.parametrize("text", ["word " * 200, "x" * 100_000])
def test_prompts_that_are_too_long(text: str) -> None:
    one = resolver(chat_prompt=100, tool_prompt=50)
    fields = PersonaFields(chat_prompt=text)
    with pytest.raises(ProtocolError) as caught:
        one.character(fields, snapshot=None, before=None, tool_prompt=None, user_name=None)
    assert caught.value.code == "chat_prompt_too_long"
    with pytest.raises(ProtocolError) as caught:
        one.character(PersonaFields(), snapshot=ANNA, before=None, tool_prompt=text, user_name=None)
    assert caught.value.code == "tool_prompt_too_long"
    with pytest.raises(ValueError, match="at most 100"):
        one.prefix(text)


def test_a_prompt_may_have_exactly_as_many_tokens() -> None:
    ids = FORM.text.encode(ANNA.chat_prompt)
    one = resolver(chat_prompt=len(ids))
    assert one.chat_ids(ANNA.chat_prompt)
    with pytest.raises(ProtocolError):
        one.chat_ids(ANNA.chat_prompt + " x y")


def test_the_stored_prefix_is_what_a_nameless_user_gets() -> None:
    one = resolver()
    stored = replace(ANNA, chat_prompt="You know {{user}}.")
    character = one.character(PersonaFields(), snapshot=stored, before=None, tool_prompt=None, user_name=None)
    assert character.chat_ids == one.prefix(stored.chat_prompt)
    assert character.chat_prompt == f"You know {DEFAULT_USER_NAME}."


def test_history_leaves_room_for_the_longest_turn() -> None:
    one = resolver(chat_context=1000, chat_reply=100, utterance=100, tool_context=600, tool_reply=50)
    character = one.character(PersonaFields(), snapshot=ANNA, before=None, tool_prompt=None, user_name=None)
    assert one.history_limit(character) + len(character.chat_ids) + 200 <= 1000
    assert one.tool_history_limit(character) + len(character.tool_ids) + 150 <= 600 or not one.tool_history_limit(
        character
    )
    assert resolver(history=10).history_limit(character) == 10
    assert resolver(chat_context=100).history_limit(character) == 0


def test_no_list_is_walked_for_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    one = resolver(replace(ANNA, phrases=(PhraseRule("my dear"),)), phrases=(PhraseRule("oh honey"),))
    walked: list[PhraseRule] = []

    def walk(rule: PhraseRule) -> int:
        walked.append(rule)
        return 0

    monkeypatch.setattr(PhraseRule, "__hash__", walk)
    anna = one.cast(PersonaFields(persona="anna"), None, None, None, UNLIMITED)
    one.cast(PersonaFields(chat_prompt="You are new."), anna, None, None, UNLIMITED)
    one.cast(PersonaFields(), anna, None, None, UNLIMITED)
    assert not walked


def test_without_an_engine_there_are_no_ids() -> None:
    for chat, tool in ((FORM, None), (None, FORM)):
        one = PersonaResolver(chat, tool, PromptLimits(), PhraseStore(chat))
        character = one.character(PersonaFields(), snapshot=ANNA, before=None, tool_prompt=None, user_name=None)
        assert bool(character.chat_ids) is (chat is not None)
        assert bool(character.tool_ids) is (tool is not None)
        assert bool(one.tool_warm_ids()) is (tool is not None)


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

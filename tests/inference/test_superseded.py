"""Texts of superseded turns, the cut to the heard part, and rights that change during a session."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from accounts.callers import Caller
from inference.prompting.conversation import MAX_PENDING_CHARS
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import ANNA, MAX, START, UNLIMITED, Line, catalogue, talking

SAID = "Hello there, how are you today?"


def prompt(chat: FakeEngine) -> str:
    return str(chat.tokenizer.decode(list(chat.requests[-1].prompt_ids)))


async def begun(line: Line, chat: FakeEngine, **fields: Any) -> None:
    """A start whose request is in the engine, without a word of the reply."""
    count = len(chat.requests)
    await line.say({**START, **fields})
    await chat.wait_for_requests(count + 1)


# -- superseded before a word ----------------------------------------------------------------------


async def test_three_quick_starts_leave_one_user_message_and_no_empty_reply() -> None:
    chat = FakeEngine(reply=SAID, first=asyncio.Event())
    async with talking(chat) as line:
        await begun(line, chat, user_utterance="I was")
        await begun(line, chat, user_utterance="thinking")
        await begun(line, chat, user_utterance="of the sea")
        assert chat.first is not None
        chat.first.set()
        await line.until_done(3)
        assert "<|im_start|>user\nI was\nthinking\nof the sea<|im_end|>" in prompt(chat)
        assert prompt(chat).count("<|im_start|>assistant\n") == 1
        await line.turn(user_utterance="yes")
        assert prompt(chat).count("<|im_start|>assistant\n") == 2
        assert "user\nyes<|im_end|>" in prompt(chat)


async def test_a_cancel_before_a_word_keeps_the_text_for_the_next_message() -> None:
    chat = FakeEngine(reply=SAID, first=asyncio.Event())
    async with talking(chat) as line:
        await begun(line, chat, user_utterance="remember this")
        await line.say("__CANCEL__")
        assert chat.first is not None
        chat.first.set()
        await line.turn(user_utterance="and this")
        assert "user\nremember this\nand this<|im_end|>" in prompt(chat)


async def test_a_history_of_the_client_replaces_pending_text() -> None:
    chat = FakeEngine(reply=SAID, first=asyncio.Event())
    async with talking(chat) as line:
        await begun(line, chat, user_utterance="gone")
        assert chat.first is not None
        chat.first.set()
        await line.turn(user_utterance="new", history_text="User: a\nAssistant: b")
        assert "gone" not in prompt(chat)
        assert "user\nnew<|im_end|>" in prompt(chat)


async def test_a_refused_start_keeps_the_pending_text() -> None:
    chat = FakeEngine(reply=SAID, first=asyncio.Event())
    caller = replace(UNLIMITED, limits=replace(UNLIMITED.limits, tokens_per_day=100_000))
    async with talking(chat, caller=caller) as line:
        await begun(line, chat, user_utterance="remember this")
        await line.say("__CANCEL__")
        whole, line.serving.budget.reserve = line.serving.budget.reserve, refuse  # type: ignore[method-assign, assignment]
        assert (await line.ask({**START, "user_utterance": "refused"}))["error_code"] == "token_budget_exhausted"
        line.serving.budget.reserve = whole  # type: ignore[method-assign]
        assert chat.first is not None
        chat.first.set()
        await line.turn(user_utterance="and this")
        assert "user\nremember this\nand this<|im_end|>" in prompt(chat)


async def refuse(_caller: Caller, _tokens: int) -> None:
    """A budget whose rest other connections have reserved."""


async def test_pending_text_is_bounded() -> None:
    chat = FakeEngine(reply=SAID, first=asyncio.Event())
    async with talking(chat) as line:
        for number in range(8):
            await begun(line, chat, user_utterance=f"{number} " + "word " * 60)
        conversation = line.session._state.conversation
        assert conversation is not None
        await line.say("__CANCEL__")
        assert len(conversation.joined("x") or "") <= MAX_PENDING_CHARS + 2


async def test_the_character_may_speak_first_again_after_a_cancel() -> None:
    chat = FakeEngine(reply=SAID, first=asyncio.Event())
    async with talking(chat) as line:
        await begun(line, chat, user_utterance="")
        assert chat.first is not None
        chat.first.set()
        await line.say({**START, "user_utterance": ""})
        await line.until_done(2)
        assert line.text() == SAID


# -- heard -----------------------------------------------------------------------------------------


async def test_nothing_heard_joins_the_users_texts() -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        await line.turn(user_utterance="first")
        await line.turn(user_utterance="second", heard=0)
        assert "user\nfirst\nsecond<|im_end|>" in prompt(chat)
        assert SAID not in prompt(chat)


async def test_heard_never_touches_an_older_reply() -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        await line.turn(user_utterance="first")
        chat.first = asyncio.Event()
        await begun(line, chat, user_utterance="second")  # nothing is said to it
        await line.say({"type": "cancel", "heard": 2})
        await line.say({"type": "cancel", "heard": 2})
        chat.first.set()
        await line.turn(user_utterance="third")
        assert f"assistant\n{SAID}<|im_end|>" in prompt(chat)
        assert "user\nsecond\nthird<|im_end|>" in prompt(chat)


@pytest.mark.parametrize(
    ("heard", "unit", "kept"), [(3, None, "a😀b"), (3, "codepoints", "a😀b"), (3, "utf16", "a😀"), (2, "utf16", "a")]
)
async def test_heard_counts_code_points_or_utf16_units(heard: int, unit: str | None, kept: str) -> None:
    chat = FakeEngine(reply="a😀bc")
    async with talking(chat) as line:
        await line.turn(user_utterance="first")
        fields = {} if unit is None else {"heard_unit": unit}
        await line.turn(user_utterance="second", heard=heard, **fields)
        assert f"assistant\n{kept}<|im_end|>" in prompt(chat)


# -- rights and names in force ---------------------------------------------------------------------


async def test_rights_that_are_withdrawn_hold_at_the_next_start() -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        await line.turn(chat_prompt="You are Zoe.", personality="odd")
        line.session.apply_caller(replace(UNLIMITED, own_chat_prompt=False, personas=frozenset({"anna"})))
        for message in (
            {"type": "start", "session_id": "s1", "user_utterance": "hi"},
            {"type": "followup", "analysis_text": "a cat"},
            {"type": "warm_history", "history_text": "User: a"},
        ):
            assert (await line.ask(message))["error_code"] == "invalid_chat_prompt", message
        assert len(chat.requests) == 1
        await line.turn(persona="anna", gender=None, personality=None)
        assert ANNA.chat_prompt in prompt(chat)
        assert SAID in prompt(chat)  # the history stays


async def test_a_persona_that_is_taken_away_stops_speaking() -> None:
    async with talking() as line:
        await line.turn(persona="max", gender=None, personality=None)
        line.session.apply_caller(replace(UNLIMITED, personas=frozenset({"anna"})))
        answer = await line.ask({"type": "start", "session_id": "s1", "user_utterance": "hi"})
        assert answer["error_code"] == "unknown_persona"


async def test_a_swap_during_a_turn_books_the_turn_on_the_persona_that_spoke() -> None:
    chat = FakeEngine(reply=SAID, step=asyncio.Semaphore(2))
    async with talking(chat) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        assert (await line.ask({"type": "chat_prompt", "persona": "max"}))["type"] in ("ack", "token")
        assert chat.step is not None
        for _ in range(1000):
            chat.step.release()
        await line.until_done()
        assert {key.persona for key, row in line.serving.ledger._sums.items() if row.counts["turns"]} == {"anna"}


async def test_chat_prompt_with_only_a_new_text_is_applied() -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        await line.turn()
        assert (await line.ask({"type": "chat_prompt", "chat_prompt": "You are Zoe."}))["code"] == 200
        assert (await line.ask({"type": "chat_prompt", "chat_prompt": "You are Zoe."}))["code"] == 204
        await line.turn(gender=None, personality=None)
        assert "You are Zoe." in prompt(chat)
        assert SAID in prompt(chat)


async def test_a_later_start_with_only_a_name_renames_the_user() -> None:
    chat = FakeEngine(reply=SAID)
    named = replace(ANNA, chat_prompt="You know {{User}}.")
    async with talking(chat, catalogue=catalogue(named, MAX)) as line:
        await line.turn()
        await line.turn(gender=None, personality=None, user_identity=" Bob ")
        assert "You know Bob." in prompt(chat)
        await line.turn(gender=None, personality=None)
        assert "You know Bob." in prompt(chat)
        await line.turn(gender=None, personality=None, user_identity="non-binary")
        assert "You know a non-binary person." in prompt(chat)


async def test_an_expansion_bomb_is_refused_at_once() -> None:
    async with talking() as line:
        bomb = {**START, "chat_prompt": "{{user}}" * 60_000, "user_identity": "x" * 64}
        assert (await line.ask(bomb))["error_code"] == "chat_prompt_too_long"


async def test_keys_do_not_share_cached_prefixes() -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        other = Line(line.serving, replace(UNLIMITED, prefix="other"))
        await line.turn()
        await other.turn()
        salts = {request.cache_salt for request in chat.requests}
        assert len(salts) == 2
        assert None not in salts
        await other.session.aclose()

"""Limits of a session, and edits on a live server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from accounts.callers import Window
from accounts.token_budget import MemoryTokenBudget
from inference.engines.base import EngineRole
from personas.snapshot import PersonaSnapshot
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import ANNA, MAX, START, UNLIMITED, Line, catalogue, talking
from tests.inference.session_lines import (
    PATIENT,
    SAID,
    held,
    let_go,
    limited,
    prompts,
    settled,
)

# -- limits ----------------------------------------------------------------------------------------


async def test_messages_have_a_rolling_window() -> None:
    async with talking(FakeEngine(reply=SAID), caller=limited(messages=Window(3, 60))) as line:
        assert (await line.ask({"type": "dance"}))["error_code"] == "unknown_message_type"  # counts as one
        assert (await line.ask({"type": "warm_history", "history_text": ""}))["type"] == "warmed"
        await line.turn()
        for message in (START, {"type": "dance"}, {"type": "warm_persona", "chat_prompt": "x"}):
            frame = await line.ask({**message, "request_id": 1})
            assert frame["error_code"] == "message_rate_limited"
            assert frame["request_id"] == "1"
            assert isinstance(frame["retry_in"], int)
            assert 58 <= frame["retry_in"] <= 60
        frame = await line.ask({"type": "chat_prompt", "gender": "male"})
        assert (frame["type"], frame["code"], frame["error_code"]) == ("ack", 429, "message_rate_limited")
        for free in ("ping", "pong", "ping"):
            await line.say({"type": free})
        assert (await line.ask("__CANCEL__"))["type"] == "done"
        await line.say("__END__")
        assert line.closed == 1000


async def test_cancels_have_a_window_of_their_own() -> None:
    async with talking(FakeEngine(reply=SAID), caller=limited(cancels=Window(2, 60), messages=Window(1, 60))) as line:
        for _ in range(2):
            assert (await line.ask("__CANCEL__"))["type"] == "done"
        frame = await line.ask({"cancel": True, "request_id": "c"})
        assert (frame["error_code"], frame["request_id"]) == ("cancel_rate_limited", "c")
        assert 58 <= frame["retry_in"] <= 60
        await line.turn()


async def test_a_refused_message_takes_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("inference.session_limits.time.monotonic", lambda: now)
    async with talking(caller=limited(messages=Window(2, 10))) as line:
        for _ in range(2):
            await line.ask({"type": "dance"})
            now += 1
        for _ in range(5):
            assert (await line.ask({"type": "dance"}))["error_code"] == "message_rate_limited"
        now = 1009.9
        assert (await line.ask({"type": "dance"}))["retry_in"] == 1  # whole seconds, at least one
        now = 1010.0
        assert (await line.ask({"type": "dance"}))["error_code"] == "unknown_message_type"
        assert (await line.ask({"type": "dance"}))["error_code"] == "message_rate_limited"
        now = 1011.0
        assert (await line.ask({"type": "dance"}))["error_code"] == "unknown_message_type"


@pytest.mark.parametrize("window", [Window(0, 60), Window(1, 0)])
async def test_zero_switches_a_limit_off(window: Window) -> None:
    caller = limited(messages=window, cancels=window, persona_updates=window)
    async with talking(caller=caller) as line:
        await line.turn()
        for gender in ("male", "female") * 5:
            assert (await line.ask({"type": "chat_prompt", "gender": gender}))["code"] == 200
            assert (await line.ask("__CANCEL__"))["type"] == "done"


async def test_changed_limits_govern_the_next_message() -> None:
    async with talking() as line:
        await line.ask({"type": "dance"})
        line.session.apply_caller(limited(messages=Window(1, 60)))
        assert (await line.ask({"type": "dance"}))["error_code"] == "unknown_message_type"
        assert (await line.ask({"type": "dance"}))["error_code"] == "message_rate_limited"
        line.session.apply_caller(UNLIMITED)
        assert (await line.ask({"type": "dance"}))["error_code"] == "unknown_message_type"


async def test_the_longest_reply_of_a_key() -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat, caller=limited(max_out=3)) as line:
        await line.turn()
        line.session.apply_caller(limited(max_out=10_000))
        await line.turn()
        assert [request.max_tokens for request in chat.requests] == [3, 150]


async def test_the_token_budget_is_counted_to_the_token() -> None:
    chat, tool = FakeEngine(reply=SAID), FakeEngine(EngineRole.TOOL, lambda _: "[]")
    async with talking(chat, tool, turn=PATIENT, caller=limited(tokens_per_day=1000)) as line:
        used = 0
        while used < 1000:
            usage = (await line.turn(history_text=""))[-1]["usage"]
            kinds = ("prompt_tokens", "completion_tokens", "tool_prompt_tokens", "tool_completion_tokens")
            used += sum(usage[kind] for kind in kinds)
            await settled()
            assert await line.serving.budget.remaining(line.session.caller) == 1000 - used
        for message in (START, {"type": "followup", "analysis_text": "a"}):
            frame = await line.ask(message)
            assert frame["error_code"] == "token_budget_exhausted"
            assert 1 <= frame["retry_in"] <= 86_400
        budget = line.serving.budget
        assert isinstance(budget, MemoryTokenBudget)
        budget._clock = lambda: 86_400.0 * 40_000  # another day
        assert (await line.turn())[-1]["type"] == "done"


async def test_what_a_key_may_use() -> None:
    caller = replace(UNLIMITED, personas=frozenset({"anna"}), own_chat_prompt=False, own_tool_prompt=False)
    async with talking(caller=caller) as line:
        refused = [
            ({"persona": "max"}, "unknown_persona"),
            ({"gender": "male", "personality": "dry"}, "missing_chat_prompt"),
            ({"chat_prompt": "You."}, "invalid_chat_prompt"),
            ({"tool_prompt": "Decide."}, "invalid_tool_prompt"),
        ]
        for fields, code in refused:
            assert (await line.ask({**START, **fields}))["error_code"] == code
        assert (await line.ask({"type": "warm_persona", "chat_prompt": "x"}))["error_code"] == "invalid_chat_prompt"
        await line.turn()
        assert (await line.ask({"type": "chat_prompt", "persona": "max"}))["error_code"] == "unknown_persona"
        frame = await line.ask({"type": "chat_prompt", "gender": "male", "chat_prompt": "You."})
        assert frame["error_code"] == "invalid_chat_prompt"


# -- edits on a live server ------------------------------------------------------------------------


def edit(line: Line, *personas: PersonaSnapshot) -> None:
    found = catalogue(*personas, version=line.serving.resolver.catalogue.version + 1)
    phrases = line.serving.resolver.phrases
    phrases.install(phrases.compile(found))


@pytest.mark.parametrize("fields", [{}, {"gender": None, "personality": None}])
async def test_an_edited_persona_is_used_from_the_next_turn(fields: dict[str, Any]) -> None:
    chat = held(2)
    async with talking(chat) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        edit(line, replace(ANNA, chat_prompt="You are Anna the second.", version=2), MAX)
        let_go(chat)
        await line.until_done()
        assert line.text() == SAID
        await line.turn(**fields)
        assert "Anna the second" not in prompts(chat)[0]
        assert "Anna the second" in prompts(chat)[1]
        assert SAID in prompts(chat)[1]
        await line.say({"type": "followup", "analysis_text": "a"})
        edit(line, replace(ANNA, chat_prompt="You are Anna the third.", version=3), MAX)
        await line.until_done(3)
        await line.say({"type": "followup", "analysis_text": "a"})
        await line.until_done(4)
        assert "third" not in prompts(chat)[2]
        assert "third" in prompts(chat)[3]


async def test_a_disabled_persona_lives_on_in_its_sessions_alone() -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        await line.turn(persona="anna", gender=None, personality=None)
        edit(line, MAX)
        await line.turn(gender=None, personality=None)
        assert ANNA.chat_prompt in prompts(chat)[-1]
        other = Line(line.serving)
        other.session.open()
        assert (await other.ask({**START, "persona": "anna"}))["error_code"] == "unknown_persona"
        await other.session.aclose()


async def test_an_own_prompt_survives_edits() -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        await line.turn(chat_prompt="You are Zoe.")
        edit(line, replace(ANNA, chat_prompt="You are Anna the second."), MAX)
        await line.turn(gender=None, personality=None)
        assert "You are Zoe." in prompts(chat)[-1]

"""F5 and F12: whatever computes is admitted and charged, and an answer never costs less than the question."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from accounts.callers import Caller
from inference.protocol.close_codes import CLOSE_POLICY
from inference.serving_context import ServingContext
from inference.session_limits import PINGS, REFUSALS
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import START, UNLIMITED, Line, make_serving, talking

HISTORY = "\n".join(f"User: question {n}\nAssistant: an answer of some words" for n in range(20))
OWN = {**START, "chat_prompt": "You are a lighthouse keeper of few words, who likes the sea."}


def budget(tokens: int) -> Caller:
    return replace(UNLIMITED, limits=replace(UNLIMITED.limits, tokens_per_day=tokens))


def closed(line: Line) -> int | None:
    return line.closed


async def left(line: Line) -> int:
    remaining = await line.serving.budget.remaining(line.session.caller)
    assert remaining is not None
    return remaining


@asynccontextmanager
async def lines(serving: ServingContext, caller: Caller, count: int) -> AsyncIterator[list[Line]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(Line(serving, caller))
            made[-1].session.open()
            stack.push_async_callback(made[-1].session.aclose)
        yield made


# -- F5 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {"type": "warm_history", "history_text": HISTORY},
        {"type": "warm_persona", "chat_prompt": "You are somebody else altogether."},
        {**START, "history_text": HISTORY},
        {"type": "followup", "analysis_text": "A window with a form."},
    ],
)
async def test_a_key_without_tokens_computes_nothing(message: dict[str, Any]) -> None:
    chat = FakeEngine()
    async with talking(chat, caller=budget(1_000_000)) as line:
        await line.turn()
        line.session.apply_caller(budget(1))
        requests = len(chat.requests)
        frame = await line.ask(message)
        assert frame["error_code"] == "token_budget_exhausted"
        assert frame["retry_in"] >= 1
        assert len(chat.requests) == requests


async def test_warm_ups_are_charged() -> None:
    chat = FakeEngine()
    async with talking(chat, caller=budget(100_000)) as line:
        for message in (
            {"type": "warm_history", "history_text": HISTORY},
            {"type": "warm_persona", "chat_prompt": OWN["chat_prompt"]},
        ):
            before = await left(line)
            assert (await line.ask(message))["type"] == "warmed"
            assert before - await left(line) == len(chat.requests[-1].prompt_ids) > 10


async def test_a_reply_cancelled_before_its_first_token_costs_its_prompt() -> None:
    chat = FakeEngine(first=asyncio.Event())
    async with talking(chat, caller=budget(100_000)) as line:
        for turn in range(3):
            before = await left(line)
            await line.say({**START, "history_text": f"{HISTORY} {turn}"})
            await chat.wait_for_requests(turn + 1)
            await line.say({"type": "cancel"})
            await line.until_done(turn + 1)
            assert before - await left(line) >= len(chat.requests[-1].prompt_ids) > 100


async def test_many_connections_overshoot_a_budget_by_one_turn_at_most() -> None:
    chat = FakeEngine(step=asyncio.Semaphore(0))
    serving = await make_serving(chat, None)
    caller = budget(300)
    async with lines(serving, caller, 30) as all_lines:
        await asyncio.gather(*(line.say({**START, "history_text": HISTORY}) for line in all_lines))
        started = [line for line in all_lines if line.frames and line.frames[0]["type"] == "ack"]
        refused = [frame["error_code"] for line in all_lines for frame in line.frames if frame["type"] == "error"]
        assert len(started) == 1
        assert refused == ["token_budget_exhausted"] * 29
        assert chat.step is not None
        for _ in range(50):
            chat.step.release()
        await started[0].until_done()
        remaining = await serving.budget.remaining(caller)
        assert remaining is not None
        one_turn = sum(started[0].frames[-1]["usage"][part] for part in ("prompt_tokens", "completion_tokens"))
        assert remaining == 300 - one_turn
    await serving.engines.aclose()


async def test_many_warm_ups_overshoot_a_budget_by_one_at_most() -> None:
    chat = FakeEngine()
    serving = await make_serving(chat, None)
    caller = budget(50)
    async with lines(serving, caller, 10) as all_lines:
        message = {"type": "warm_history", "history_text": HISTORY}
        await asyncio.gather(*(line.ask(message) for line in all_lines))
        answers = sorted(line.frames[0].get("error_code", "warmed") for line in all_lines)
        assert answers == ["token_budget_exhausted"] * 9 + ["warmed"]
        assert len(chat.requests) == 1
    await serving.engines.aclose()


async def test_a_barge_in_is_not_refused_for_the_turn_that_it_ends() -> None:
    chat = FakeEngine(step=asyncio.Semaphore(2))
    async with talking(chat, caller=budget(150)) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        assert await left(line) <= 0  # the running turn has reserved more than is left
        await line.say({**START, "user_utterance": "wait"})
        assert chat.step is not None
        for _ in range(50):
            chat.step.release()
        await line.until_done(2)
        assert [frame["type"] for frame in line.frames].count("error") == 0


async def test_reservations_are_given_back_however_a_turn_ends() -> None:
    chat = FakeEngine(first=asyncio.Event())
    serving = await make_serving(chat, None)
    caller = budget(100_000)
    used = 0
    for ending in ("cancel", "end", "gone", "revoked", "drained"):
        async with lines(serving, caller, 1) as (line,):
            await line.say(START)
            await chat.wait_for_requests(len(chat.finished) + len(chat.aborted) + 1)
            if ending in ("cancel", "end"):
                await line.say({"type": ending})
            elif ending == "revoked":
                await line.session.revoke()
            elif ending == "drained":
                await line.session.drain(0.01)
        used += len(chat.requests[-1].prompt_ids)
        assert await serving.budget.remaining(caller) == 100_000 - used
    await serving.engines.aclose()


# -- F12 ---------------------------------------------------------------------------------------------------------------


async def test_pings_have_a_window_of_their_own() -> None:
    async with talking() as line:
        for _ in range(PINGS.limit):
            await line.say({"type": "ping"})
        assert closed(line) is None
        assert len(line.frames) == PINGS.limit
        await line.say({"type": "ping"})
        assert closed(line) == CLOSE_POLICY
        await line.say({"type": "ping"})
        assert len(line.frames) == PINGS.limit


async def test_a_client_may_keep_time_with_pings() -> None:
    assert PINGS.limit / PINGS.seconds >= 150  # one each 10 ms is an ordinary monitor


@pytest.mark.parametrize(
    "message",
    ["{", json.dumps({"type": "nothing"}), json.dumps({"type": "start"}), json.dumps({"type": "cancel", "heard": -1})],
)
async def test_refused_messages_end_in_a_close(message: str) -> None:
    async with talking() as line:
        for _ in range(REFUSALS.limit):
            await line.say(message)
        assert closed(line) is None
        assert {frame["type"] for frame in line.frames} == {"error"}
        await line.say(message)
        assert closed(line) == CLOSE_POLICY
        assert len(line.frames) == REFUSALS.limit + 1


async def test_messages_over_the_rate_limit_end_in_a_close() -> None:
    from accounts.callers import Window

    limits = replace(UNLIMITED.limits, messages=Window(1, 60.0))
    async with talking(caller=replace(UNLIMITED, limits=limits)) as line:
        await line.turn()
        for _ in range(REFUSALS.limit + 1):
            await line.say(START)
        assert closed(line) == CLOSE_POLICY


async def test_large_messages_that_are_refused_end_sooner() -> None:
    async with talking() as line:
        for _ in range(8):
            await line.say("{" + "x" * 1_000_000)
        assert closed(line) == CLOSE_POLICY
        assert len(line.frames) <= 7


async def test_a_running_turn_ends_with_its_abusive_client() -> None:
    chat = FakeEngine(step=asyncio.Semaphore(0))
    async with talking(chat) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        for _ in range(REFUSALS.limit + 1):
            await line.say("{")
        assert closed(line) == CLOSE_POLICY
        assert line.frames[-1] == {"type": "done", "cancelled": True, "turn": 1}
        await chat.wait_idle()


async def test_a_client_that_errs_now_and_then_stays() -> None:
    async with talking() as line:
        for _ in range(5):
            await line.say("{")
            frames = await line.turn()
            assert frames[-1]["type"] == "done"
        assert closed(line) is None

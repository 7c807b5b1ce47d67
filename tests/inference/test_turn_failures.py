"""Turns that fail: late decisions, dead engines, timeouts, cancels at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable

import pytest

from inference.engines.base import Delta, EngineRole, GenerationRequest
from inference.tool_decision import ToolPolicy
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import ANNA, START, catalogue, check_order, talking
from tests.inference.turn_lines import (
    ANY_TOOL,
    BOTH,
    NO,
    PATIENT,
    SAID,
    SEEN,
    SEQUENTIAL,
    YES,
    by_prefix,
    of_type,
    settled,
    text_of,
    tool_engine,
)

# -- too late --------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("limits", [ToolPolicy(hard_timeout_s=0.05), ToolPolicy(hard_timeout_s=None, timeout_s=0.05)])
async def test_a_decision_that_comes_too_late_is_a_no(policy: TurnPolicy, limits: ToolPolicy) -> None:
    chat, tool = FakeEngine(reply=by_prefix), tool_engine(YES, first=asyncio.Event())
    turn = TurnPolicy(concurrent=policy.concurrent, tool=limits)
    async with talking(chat, tool, turn=turn) as line:
        frames = await line.turn()
        assert frames[1] == {"type": "toolcall", "status": "no", "raw": [], "turn": 1}
        assert line.text() == SAID
        await tool.wait_idle()
        assert tool.aborted == [tool.requests[0].request_id]
        assert 50 <= frames[-1]["usage"]["tool_ms"] < 2000


@BOTH
async def test_a_yes_whose_call_does_not_come_is_a_no(policy: TurnPolicy) -> None:
    chat = FakeEngine(reply=by_prefix)
    tool = FakeEngine(EngineRole.TOOL, lambda _: YES, step=asyncio.Semaphore(3))
    turn = TurnPolicy(concurrent=policy.concurrent, tool=ToolPolicy(hard_timeout_s=None, timeout_s=0.05))
    async with talking(chat, tool, turn=turn) as line:
        await line.turn(tool_prompt=ANY_TOOL)
        assert of_type(line, "toolcall")[0]["status"] == "no"
        assert line.text() == SAID
        assert "CHECK" not in text_of(chat.requests[-1])
        await tool.wait_idle()


async def test_a_full_prebuffer_lets_the_reply_go() -> None:
    chat, tool = FakeEngine(reply=by_prefix), tool_engine(YES, first=asyncio.Event())
    turn = TurnPolicy(prebuffer_max_chars=10, tool=ToolPolicy(hard_timeout_s=None))
    async with talking(chat, tool, turn=turn) as line:
        await line.turn()
        assert line.types() == ["ack", "toolcall", "token", "final", "done"]
        assert of_type(line, "toolcall")[0]["status"] == "no"
        assert line.text() == SAID
        assert len(chat.requests) == 1
        await tool.wait_idle()
        assert tool.aborted


async def test_a_prebuffer_that_is_not_full_waits() -> None:
    chat, tool = FakeEngine(reply=SAID), tool_engine(first=asyncio.Event())
    turn = TurnPolicy(prebuffer_max_chars=len(SAID), tool=ToolPolicy(hard_timeout_s=None))
    async with talking(chat, tool, turn=turn) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        await chat.wait_idle()
        await settled()
        assert line.types() == ["ack"]
        assert tool.first is not None
        tool.first.set()
        await line.until_done()


# -- engines that die, replies that take too long --------------------------------------------------


@BOTH
@pytest.mark.parametrize("tokens", [0, 3])
async def test_a_tool_engine_that_dies_counts_as_no(policy: TurnPolicy, tokens: int) -> None:
    chat = FakeEngine(reply=by_prefix)
    tool = FakeEngine(EngineRole.TOOL, lambda _: YES, step=asyncio.Semaphore(tokens))
    async with talking(chat, tool, turn=policy) as line:
        await line.say({**START, "tool_prompt": ANY_TOOL})
        await tool.wait_for_requests(1)
        await settled()
        tool.die()
        await line.until_done()
        assert line.types() == ["ack", "toolcall", "token", "final", "done"]
        assert of_type(line, "toolcall")[0]["status"] == "no"
        assert line.text() == SAID


async def test_a_chat_engine_that_dies_ends_the_turn_with_an_error() -> None:
    chat = FakeEngine(reply=SAID, step=asyncio.Semaphore(3))
    async with talking(chat) as line:
        await line.say({**START, "request_id": "r"})
        await line.until(lambda frames: len(frames) == 4)
        chat.die()
        await line.until_done()
        assert line.types() == ["ack", "token", "error", "done"]
        error, done = line.frames[-2:]
        assert error == {
            "type": "error", "error_code": "engine_unavailable", "message": error["message"], "turn": 1,
            "request_id": "r",
        }  # fmt: skip
        assert done["usage"]["finish_reason"] == "error"
        assert done["usage"]["completion_tokens"] == 3
        assert "cancelled" not in done


async def test_a_chat_engine_that_dies_before_the_decision_ends_the_turn_at_once() -> None:
    chat, tool = FakeEngine(reply=SAID, first=asyncio.Event()), tool_engine(first=asyncio.Event())
    async with talking(chat, tool, turn=PATIENT) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        chat.die()
        await line.until_done()
        assert line.types() == ["ack", "error", "done"]
        await tool.wait_idle()


@pytest.mark.parametrize("given", [0, 3])
async def test_a_reply_that_takes_too_long_ends_with_an_error(given: int) -> None:
    chat = FakeEngine(reply=SAID, step=asyncio.Semaphore(given))
    async with talking(chat, turn=TurnPolicy(reply_timeout_s=0.1)) as line:
        frames = await line.turn()
        assert line.types() == ["ack", *(["token"] if given else []), "error", "done"]
        assert frames[-2]["error_code"] == "generation_timeout"
        assert frames[-1]["usage"]["finish_reason"] == "timeout"
        assert frames[-1]["usage"]["completion_tokens"] == given
        await chat.wait_idle()
        assert chat.aborted == [chat.requests[0].request_id]


async def test_a_reply_that_takes_too_long_beside_the_decision() -> None:
    chat, tool = FakeEngine(reply=SAID), tool_engine(first=asyncio.Event())
    async with talking(chat, tool, turn=TurnPolicy(reply_timeout_s=0.1, tool=ToolPolicy(hard_timeout_s=None))) as line:
        await line.turn()
        assert line.types() == ["ack", "error", "done"]
        await asyncio.gather(chat.wait_idle(), tool.wait_idle())


async def test_what_goes_wrong_inside_is_told_by_a_reference_alone(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: GenerationRequest) -> str:
        raise RuntimeError("secret /path/to/file")

    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        chat.reply = broken
        frames = await line.turn()
        assert line.types() == ["ack", "error", "done"]
        error = frames[-2]
        assert error["error_code"] == "internal_error"
        assert "secret" not in json.dumps(frames)
        assert "Traceback" not in json.dumps(frames)
        assert error["reference"] in caplog.text
        assert "secret" in caplog.text
        chat.reply = SAID
        await line.turn()
        assert line.text() == SAID


# -- cancelled anywhere ----------------------------------------------------------------------------


class Lingering(FakeEngine):
    """An engine whose abort takes a few rounds of the loop, as a real one's does."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        deltas = super().generate(request)
        try:
            async for delta in deltas:
                yield delta
        finally:
            try:
                for _ in range(5):
                    await asyncio.sleep(0)
            finally:
                await deltas.aclose()


Make = Callable[[], tuple[FakeEngine, FakeEngine | None, TurnPolicy]]
CASES: dict[str, Make] = {
    "chat": lambda: (Lingering(reply=SAID), None, PATIENT),
    "no": lambda: (Lingering(reply=SAID), Lingering(EngineRole.TOOL, lambda _: NO), PATIENT),
    "yes": lambda: (Lingering(reply=by_prefix), Lingering(EngineRole.TOOL, lambda _: YES), PATIENT),
    "then": lambda: (Lingering(reply=by_prefix), Lingering(EngineRole.TOOL, lambda _: YES), SEQUENTIAL),
    "full": lambda: (
        Lingering(reply=SAID),
        Lingering(EngineRole.TOOL, lambda _: YES, first=asyncio.Event()),
        TurnPolicy(prebuffer_max_chars=4, tool=ToolPolicy(hard_timeout_s=None)),
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_cancel_at_any_moment_ends_the_turn_there(case: str) -> None:
    finished, moment = False, 0
    while not finished:
        chat, tool, policy = CASES[case]()
        async with talking(chat, tool, turn=policy) as line:
            await line.say(START)
            for _ in range(moment):
                await asyncio.sleep(0)
            finished = line.frames[-1]["type"] == "done"
            await line.say({"type": "cancel"})
            assert line.frames[-1]["type"] == "done"
            assert line.frames[-1]["cancelled"] is True
            count = len(line.frames)
            await settled()
            assert len(line.frames) == count, "nothing comes after a cancelled turn"
            assert not line.session.running
            for engine in (chat, *([tool] if tool else [])):
                async with asyncio.timeout(1):
                    await engine.wait_idle()
            check_order(line.frames)
            if not finished:
                assert line.text() in (SAID[: len(line.text())], SEEN[: len(line.text())])
        moment += 1
    assert moment > 10


async def test_a_disconnect_at_any_moment_leaves_no_request_behind() -> None:
    for moment in range(60):
        chat, tool, policy = CASES["yes"]()
        async with talking(chat, tool, turn=policy) as line:
            await line.say(START)
            for _ in range(moment):
                await asyncio.sleep(0)
            await line.session.aclose()
            await line.session.aclose()
            async with asyncio.timeout(1):
                await asyncio.gather(chat.wait_idle(), tool.wait_idle() if tool else chat.wait_idle())
            count = len(line.frames)
            await settled()
            assert len(line.frames) == count


async def test_styled_text_adds_up_to_final() -> None:
    anna = catalogue(type(ANNA)(**{**{f: getattr(ANNA, f) for f in ANNA.__slots__}, "output_style": "speech"}))
    async with talking(FakeEngine(reply="Oh *well* **now**, :) see"), catalogue=anna) as line:
        frames = await line.turn()
        assert "*" not in line.text()
        assert frames[-2]["normalized_text"] == line.text()

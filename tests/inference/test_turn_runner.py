"""The one running turn: one ``done`` for each turn, one result, whoever stops it and however long that takes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from inference import turn_runner
from inference.engines.base import EngineDead, EngineRole, GenerationRequest
from inference.tool_decision import ToolPolicy
from inference.turn import Turn
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import START, Line, talking

SAID = "Hello there, how are you today?"
YES = '[{"name": "take_screenshot", "arguments": {}}]'
# A tool with an argument: the engine writes the whole call. A call without arguments is known at its first token.
SEARCH = (
    'Tools: [{"name": "search", "description": "Search the web.", "parameters": '
    '{"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}}]'
)
SEARCHED = '[{"name": "search", "arguments": {"query": "the sea"}}]'
PATIENT = TurnPolicy(tool=ToolPolicy(hard_timeout_s=None))


def dones(line: Line) -> list[dict[str, Any]]:
    return [frame for frame in line.frames if frame["type"] == "done"]


def used(line: Line, column: str) -> int:
    """The sum of one usage column of everything that the ledger holds."""
    return sum(row.counts[column] for row in line.serving.ledger._sums.values())


async def speaking(chat: FakeEngine, line: Line) -> None:
    await line.say(START)
    await line.until(lambda frames: any(frame["type"] == "token" for frame in frames))


@pytest.mark.parametrize(
    "stops", [("revoke", "cancel"), ("cancel", "revoke"), ("revoke", "drain"), ("drain", "revoke")]
)
async def test_two_stops_at_once_send_one_done(stops: tuple[str, str]) -> None:
    step = asyncio.Semaphore(2)
    async with talking(FakeEngine(reply=SAID, step=step)) as line:
        await speaking(line.serving.engines.engine(EngineRole.CHAT), line)  # type: ignore[arg-type]
        calls = {
            "revoke": lambda: line.session.revoke(),
            "drain": lambda: line.session.drain(0.0),
            "cancel": lambda: line.say("__CANCEL__"),
            "end": lambda: line.say("__END__"),
        }
        await asyncio.gather(*(calls[stop]() for stop in stops))
        of_turn = [frame for frame in dones(line) if frame.get("turn") == 1]
        assert len(of_turn) == 1
        assert used(line, "turns") == 1


async def test_a_stop_that_outlasts_its_grace_records_the_turn_and_silences_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turn_runner, "CANCEL_GRACE_S", 0.05)
    stuck, hold = asyncio.Event(), asyncio.Event()
    whole = Turn.run

    async def run(turn: Turn) -> None:
        try:
            await whole(turn)
        except asyncio.CancelledError:
            if turn.plan.turn == 1:
                stuck.set()
                await hold.wait()
                await turn.line.token("late")
            raise

    monkeypatch.setattr(Turn, "run", run)
    chat = FakeEngine(reply=SAID, step=asyncio.Semaphore(2))
    async with talking(chat) as line:
        await speaking(chat, line)
        await line.say({**START, "user_utterance": "again"})
        assert stuck.is_set()
        assert "did not end within" in caplog.text
        assert chat.step is not None
        for _ in range(1000):
            chat.step.release()
        await line.until_done(2)
        hold.set()
        await asyncio.sleep(0.02)
        assert [frame.get("cancelled", False) for frame in dones(line)] == [True, False]
        assert "late" not in line.text()
        assert used(line, "turns") == 2
        prompt = str(chat.tokenizer.decode(list(chat.requests[-1].prompt_ids)))
        assert "Hello" in prompt  # the delivered part of the first reply


class Failing(FakeEngine):
    """A tool engine whose requests fail with an exception of the test's choice."""

    def __init__(self, error: Exception, after: int) -> None:
        super().__init__(EngineRole.TOOL, lambda _: SEARCHED)
        self._error, self._after = error, after
        self.armed = False  # start-up requests succeed

    async def _stream(self, request: GenerationRequest) -> Any:
        count = 0
        async for piece in super()._stream(request):
            if self.armed and count >= self._after:
                raise self._error
            count += 1
            yield piece


@pytest.mark.parametrize("error", [RuntimeError("lost"), ValueError("refused"), EngineDead("gone")])
@pytest.mark.parametrize("after", [0, 4])
@pytest.mark.parametrize("concurrent", [True, False])
async def test_a_tool_engine_that_fails_is_a_no(error: Exception, after: int, concurrent: bool) -> None:
    tool = Failing(error, after)
    async with talking(FakeEngine(reply=SAID), tool, turn=replace(PATIENT, concurrent=concurrent)) as line:
        tool.armed = True
        frames = await line.turn(tool_prompt=SEARCH)
        assert [frame["status"] for frame in frames if frame["type"] == "toolcall"] == ["no"]
        assert line.text() == SAID
        assert frames[-1]["usage"]["finish_reason"] == "stop"


async def test_while_the_tool_engine_is_replaced_turns_go_on_without_it() -> None:
    chat, tool = FakeEngine(reply=SAID), FakeEngine(EngineRole.TOOL, lambda _: YES)
    async with talking(chat, tool, turn=PATIENT) as line:
        tool.die()
        frames = await line.turn()
        assert [frame["status"] for frame in frames if frame["type"] == "toolcall"] == ["no"]
        assert line.text() == SAID


# -- what is charged -------------------------------------------------------------------------------


async def test_a_reply_cancelled_before_its_first_token_pays_its_prompt() -> None:
    chat = FakeEngine(reply=SAID, first=asyncio.Event())
    async with talking(chat) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        await line.say("__CANCEL__")
        assert used(line, "prompt_tokens") == len(chat.requests[0].prompt_ids)
        assert await line.serving.budget.remaining(line.session.caller) is None


async def test_the_reply_that_a_yes_aborts_is_charged() -> None:
    chat = FakeEngine(reply=SAID)
    tool = FakeEngine(EngineRole.TOOL, lambda _: YES, first=asyncio.Event())
    async with talking(chat, tool, turn=PATIENT) as line:
        await line.say(START)
        await chat.wait_idle()  # the whole first reply is held
        assert tool.first is not None
        tool.first.set()
        usage = (await line.until_done())[-1]["usage"]
        first, second = (len(request.prompt_ids) for request in chat.requests)
        completion = len(chat.tokenizer.encode(SAID, add_special_tokens=False))
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (second, completion)
        assert usage["discarded_tokens"] == first + completion
        assert used(line, "prompt_tokens") == first + second + completion


@pytest.mark.parametrize(
    "message",
    [{"type": "warm_persona", "chat_prompt": "You are Zoe."}, {"type": "warm_history", "history_text": "User: a"}],
)
async def test_a_warm_up_is_admitted_and_charged(message: dict[str, Any]) -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        await line.turn()
        before = used(line, "prompt_tokens")
        assert (await line.ask(message))["type"] == "warmed"
        assert used(line, "prompt_tokens") - before == len(chat.requests[-1].prompt_ids)
        assert used(line, "turns") == 1
        limits = replace(line.session.caller.limits, tokens_per_day=1)
        line.session.apply_caller(replace(line.session.caller, limits=limits))
        requests = len(chat.requests)
        assert (await line.ask(message))["error_code"] == "token_budget_exhausted"
        line.serving.draining = True
        assert (await line.ask(message))["error_code"] == "server_draining"
        assert len(chat.requests) == requests

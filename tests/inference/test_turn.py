from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from inference.engines.base import Delta, EngineRole, GenerationRequest
from inference.engines.sampling import GREEDY
from inference.serving_context import SessionPolicy
from inference.tool_decision import ToolPolicy
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from tests.fakes.serving import ANNA, START, Line, catalogue, check_order, talking

SAID = "Hello there, how are you today?"
SEEN = "what do you see on the screen?"
CALL = [{"name": "take_screenshot", "arguments": {}}]
NO, YES = "[]", json.dumps(CALL)
ANY_TOOL = "Call a tool or none."  # names none, so that no call is forced
PATIENT = TurnPolicy(tool=ToolPolicy(hard_timeout_s=None))
SEQUENTIAL = TurnPolicy(concurrent=False, tool=ToolPolicy(hard_timeout_s=None))
BOTH = pytest.mark.parametrize("policy", [PATIENT, SEQUENTIAL], ids=["concurrent", "sequential"])


def tool_engine(reply: str = NO, **options: Any) -> FakeEngine:
    return FakeEngine(EngineRole.TOOL, lambda _: reply, **options)


def by_prefix(request: GenerationRequest) -> str:
    """A chat engine that knows whether it is asked to look."""
    return SEEN if "CHECK SCREEN: hi" in text_of(request) else SAID


def text_of(request: GenerationRequest) -> str:
    return str(tiny_tokenizer().decode(list(request.prompt_ids)))


def of_type(line: Line, kind: str) -> list[dict[str, Any]]:
    return [frame for frame in line.frames if frame["type"] == kind]


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(60):
        await asyncio.sleep(0)


# -- order -----------------------------------------------------------------------------------------


@BOTH
async def test_a_turn_in_order_with_its_request_id(policy: TurnPolicy) -> None:
    async with talking(FakeEngine(reply=SAID), tool_engine(), turn=policy) as line:
        frames = await line.turn(request_id=7)
        assert line.types() == ["ack", "toolcall", "token", "final", "done"]
        assert {(frame["turn"], frame["request_id"]) for frame in frames} == {(1, "7")}
        assert line.text() == frames[-2]["normalized_text"] == SAID
        assert of_type(line, "toolcall") == [
            {"type": "toolcall", "status": "no", "raw": [], "score": 0.0, "turn": 1, "request_id": "7"}
        ]
        frames = await line.turn()
        assert {(frame["turn"], frame.get("request_id")) for frame in frames} == {(2, None)}


async def test_without_a_tool_engine_there_is_no_toolcall() -> None:
    async with talking(FakeEngine(reply=SAID)) as line:
        frames = await line.turn()
        assert line.types() == ["ack", "token", "final", "done"]
        usage = frames[-1]["usage"]
        assert (usage["tool_ms"], usage["tool_prompt_tokens"], usage["tool_completion_tokens"]) == (None, 0, 0)


@BOTH
async def test_without_a_chat_engine_only_the_decision_is_told(policy: TurnPolicy) -> None:
    async with talking(None, tool_engine(YES), turn=policy) as line:
        frames = await line.turn()
        assert line.types() == ["ack", "toolcall", "final", "done"]
        assert frames[1]["raw"] == CALL
        assert frames[2]["normalized_text"] == ""
        usage = frames[3]["usage"]
        assert (usage["finish_reason"], usage["completion_tokens"], usage["ttft_ms"]) == ("stop", 0, None)


async def test_usage_is_true() -> None:
    chat, tool = FakeEngine(reply=SAID), tool_engine()
    async with talking(chat, tool, turn=PATIENT) as line:
        usage = (await line.turn())[-1]["usage"]
        assert set(usage) == {
            "prompt_tokens", "cached_tokens", "completion_tokens", "tool_prompt_tokens", "tool_completion_tokens",
            "discarded_tokens", "ttft_ms", "tool_ms", "total_ms", "finish_reason", "suppressed",
        }  # fmt: skip
        assert usage["prompt_tokens"] == len(chat.requests[-1].prompt_ids)
        assert usage["completion_tokens"] == len(chat.tokenizer.encode(SAID, add_special_tokens=False))
        assert usage["tool_prompt_tokens"] == len(tool.requests[-1].prompt_ids)
        assert usage["tool_completion_tokens"] == 1
        assert 0 < usage["tool_ms"] <= usage["ttft_ms"] <= usage["total_ms"] < 5000
        assert (usage["finish_reason"], usage["suppressed"]) == ("stop", 0)


async def test_a_reply_has_at_most_chat_max_out_tokens() -> None:
    policy = SessionPolicy(turn=TurnPolicy(), max_out=4)
    async with talking(FakeEngine(reply=SAID), policy=policy) as line:
        usage = (await line.turn())[-1]["usage"]
        assert (usage["completion_tokens"], usage["finish_reason"]) == (4, "length")
        assert SAID.startswith(line.text())


# -- the tool decision -----------------------------------------------------------------------------


async def test_both_engines_are_asked_at_once_and_the_reply_is_held() -> None:
    chat, tool = FakeEngine(reply=SAID), tool_engine(first=asyncio.Event())
    async with talking(chat, tool, turn=PATIENT) as line:
        await line.say(START)
        await asyncio.gather(chat.wait_for_requests(1), tool.wait_for_requests(1))
        await chat.wait_idle()
        assert line.types() == ["ack"]
        assert tool.first is not None
        tool.first.set()
        await line.until_done()
        assert line.types() == ["ack", "toolcall", "token", "final", "done"]
        assert line.text() == SAID
        assert len(chat.requests) == 1


async def test_one_after_the_other_the_chat_waits_for_the_decision() -> None:
    chat, tool = FakeEngine(reply=SAID), tool_engine(first=asyncio.Event())
    async with talking(chat, tool, turn=SEQUENTIAL) as line:
        await line.say(START)
        await tool.wait_for_requests(1)
        await settled()
        assert not chat.requests
        assert tool.first is not None
        tool.first.set()
        await line.until_done()
        assert line.text() == SAID


async def test_the_first_telling_token_settles_a_no() -> None:
    step = asyncio.Semaphore(1)
    tool = FakeEngine(EngineRole.TOOL, lambda _: "[] and much more that nobody waits for", step=step)
    async with talking(FakeEngine(reply=SAID), tool, turn=PATIENT) as line:
        await line.turn()
        assert of_type(line, "toolcall")[0]["status"] == "no"
        assert tool.aborted == [tool.requests[0].request_id]


async def test_a_yes_begins_the_reply_anew_with_the_prefix() -> None:
    chat, tool = FakeEngine(reply=by_prefix, first=asyncio.Event()), tool_engine(YES)
    async with talking(chat, tool, turn=PATIENT) as line:
        await line.say(START)
        await chat.wait_for_requests(2)
        assert chat.first is not None
        chat.first.set()
        await line.until_done()
        first, second = chat.requests
        assert chat.aborted == [first.request_id]
        assert "CHECK SCREEN" not in text_of(first)
        assert "user\nCHECK SCREEN: hi<|im_end|>" in text_of(second)
        assert first.request_id != second.request_id
        assert of_type(line, "toolcall") == [
            {"type": "toolcall", "status": "yes", "raw": CALL, "score": 1.0, "turn": 1}
        ]
        assert line.text() == SEEN
        assert line.types() == ["ack", "toolcall", "token", "final", "done"]


async def test_after_a_yes_nothing_of_the_first_reply_is_shown() -> None:
    chat, tool = FakeEngine(reply=by_prefix), tool_engine(YES, first=asyncio.Event())
    async with talking(chat, tool, turn=PATIENT) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        await chat.wait_idle()  # a whole reply lies ready
        assert tool.first is not None
        tool.first.set()
        await line.until_done()
        assert line.text() == SEEN


async def test_one_after_the_other_a_yes_asks_the_chat_once() -> None:
    chat = FakeEngine(reply=by_prefix)
    async with talking(chat, tool_engine(YES), turn=SEQUENTIAL) as line:
        await line.turn()
        assert line.text() == SEEN
        assert len(chat.requests) == 1


async def test_the_prefix_is_the_operators() -> None:
    chat = FakeEngine(reply=SAID)
    policy = TurnPolicy(check_screen_prefix="LOOK:", tool=ToolPolicy(hard_timeout_s=None))
    async with talking(chat, tool_engine(YES), turn=policy) as line:
        await line.turn()
        assert "user\nLOOK: hi<|im_end|>" in text_of(chat.requests[-1])


@BOTH
@pytest.mark.parametrize(
    "output", ["", "[", "no", "null", "{}", '[{"name": 5}]', '[{"name": "x", "argu', '[{"arguments": {}}]', "[1]"]
)
async def test_output_that_is_no_call_is_a_no(policy: TurnPolicy, output: str) -> None:
    chat = FakeEngine(reply=by_prefix)
    async with talking(chat, tool_engine(output), turn=policy) as line:
        await line.turn(tool_prompt=ANY_TOOL)
        (told,) = of_type(line, "toolcall")
        assert (told["status"], told["raw"]) == ("no", [])
        assert line.text() == SAID


async def test_the_tool_engine_is_held_to_the_schema_of_its_prompt() -> None:
    tool = tool_engine()
    async with talking(FakeEngine(), tool, turn=PATIENT) as line:
        await line.turn(tool_prompt='Call {"name": "look", "arguments": {}} or not.')
        request = tool.requests[-1]
        assert json.loads(request.json_schema or "")["items"]["properties"]["name"] == {"enum": ["look"]}
        assert request.sampling == GREEDY
        assert request.max_tokens == 64
        assert "look" in text_of(request)


@BOTH
async def test_a_character_that_speaks_first_asks_no_tool(policy: TurnPolicy) -> None:
    chat, tool = FakeEngine(reply=SAID), tool_engine(YES)
    async with talking(chat, tool, turn=policy) as line:
        for utterance in (None, "", " \n"):
            frames = await line.turn(user_utterance=utterance, history_text="")
            assert frames[1] == {"type": "toolcall", "status": "no", "raw": [], "turn": frames[0]["turn"]}
            assert text_of(chat.requests[-1]).endswith(f"{ANNA.chat_prompt}<|im_end|>\n<|im_start|>assistant\n")
        assert not tool.requests
        assert len(chat.requests) == 3


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


# -- frames gathered for a while -------------------------------------------------------------------


async def test_gathered_frames_add_up() -> None:
    async with talking(FakeEngine(reply=SAID), turn=TurnPolicy(flush_delay_s=30.0)) as line:
        await line.turn()
        assert line.types() == ["ack", "token", "final", "done"]
        assert [frame["text"] for frame in of_type(line, "token")] == [SAID]


async def test_a_gathered_frame_leaves_when_its_time_has_come() -> None:
    step = asyncio.Semaphore(2)
    async with talking(FakeEngine(reply=SAID, step=step), turn=TurnPolicy(flush_delay_s=0.02)) as line:
        await line.say(START)
        await line.until(lambda frames: frames[-1]["type"] == "token")
        assert line.text() == "Hello there"
        for _ in range(20):
            step.release()
        await line.until_done()
        assert line.text() == SAID


async def test_gathered_text_comes_before_the_error_and_never_after_done() -> None:
    chat = FakeEngine(reply=SAID, step=asyncio.Semaphore(2))
    async with talking(chat, turn=TurnPolicy(reply_timeout_s=0.05, flush_delay_s=0.08)) as line:
        await line.turn()
        assert line.types() == ["ack", "token", "error", "done"]
        assert line.text() == "Hello there"
        count = len(line.frames)
        await asyncio.sleep(0.1)  # the moment at which it would have left
        assert len(line.frames) == count


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

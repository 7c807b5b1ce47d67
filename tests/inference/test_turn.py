"""One turn: order of frames, tool decision, gathered frames."""

from __future__ import annotations

import asyncio
import json

import pytest

from inference.engines.base import EngineRole
from inference.engines.sampling import GREEDY
from inference.serving_context import SessionPolicy
from inference.tool_decision import ToolPolicy
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import ANNA, START, talking
from tests.inference.turn_lines import (
    ANY_TOOL,
    BOTH,
    CALL,
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

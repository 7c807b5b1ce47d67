"""One session: barge-in, cancel, followup, ping, end and the ack."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import pytest

from inference.engines.base import EngineRole
from inference.serving_context import SessionPolicy
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import START, talking
from tests.inference.session_lines import (
    PATIENT,
    SAID,
    held,
    let_go,
    prompts,
)

# -- barge-in and cancel ---------------------------------------------------------------------------


async def test_six_starts_in_a_row_give_five_cancelled_dones_and_one_answer() -> None:
    async with talking(FakeEngine(reply=SAID), FakeEngine(EngineRole.TOOL, lambda _: "[]"), turn=PATIENT) as line:
        for number in range(6):
            await line.say({**START, "request_id": f"r{number}"})
        await line.until_done(6)
        ends = [(f["turn"], f["request_id"], f.get("cancelled", False)) for f in line.frames if f["type"] == "done"]
        assert ends == [(n + 1, f"r{n}", n < 5) for n in range(6)]
        order = [(f["type"], f["turn"]) for f in line.frames if f["type"] in ("ack", "done")]
        assert order == [(kind, n) for n in range(1, 7) for kind in ("ack", "done")]
        assert line.text() == SAID


async def test_a_barge_in_while_it_speaks_aborts_in_the_engine() -> None:
    chat = held(3)
    async with talking(chat) as line:
        await line.say(START)
        await line.until(lambda frames: len(frames) == 4)
        await line.say({**START, "user_utterance": "wait"})
        assert chat.aborted == [chat.requests[0].request_id]
        let_go(chat)
        await line.until_done(2)
        assert line.types() == ["ack", "token", "done", "ack", "token", "final", "done"]


async def test_cancel_between_ack_and_first_token() -> None:
    chat = held()
    async with talking(chat) as line:
        await line.say({**START, "request_id": "r"})
        await chat.wait_for_requests(1)
        await line.say({"type": "cancel", "request_id": "c"})
        assert line.types() == ["ack", "done"]
        assert line.frames[-1] == {"type": "done", "cancelled": True, "turn": 1, "request_id": "r"}
        await chat.wait_idle()


@pytest.mark.parametrize("cancel", ["__CANCEL__", '{"cancel": true}', '{"type": "CANCEL"}'])
async def test_cancel_is_idempotent(cancel: str) -> None:
    chat = held()
    async with talking(chat) as line:
        assert await line.ask(cancel) == {"type": "done", "cancelled": True}
        await line.say(START)
        await chat.wait_for_requests(1)
        assert await line.ask(cancel) == {"type": "done", "cancelled": True, "turn": 1}
        assert await line.ask(cancel) == {"type": "done", "cancelled": True}
        assert await line.ask({"type": "cancel", "request_id": 5}) == {
            "type": "done",
            "cancelled": True,
            "request_id": "5",
        }
        let_go(chat)
        frames = await line.turn()
        assert frames[-2]["normalized_text"] == SAID


async def test_cancel_after_a_whole_turn_is_answered() -> None:
    async with talking(FakeEngine(reply=SAID)) as line:
        await line.turn()
        assert await line.ask("__CANCEL__") == {"type": "done", "cancelled": True}


# -- followup, ping, end ---------------------------------------------------------------------------


async def test_followup_is_a_turn_of_the_chat_alone() -> None:
    chat, tool = FakeEngine(reply=SAID), FakeEngine(EngineRole.TOOL, lambda _: "[]")
    async with talking(chat, tool, turn=PATIENT) as line:
        await line.turn()
        await line.say({"type": "followup", "analysis_text": " a cat ", "user_utterance": "ignored", "request_id": "f"})
        frames = (await line.until_done(2))[-4:]
        assert line.types()[5:] == ["token", "final", "done"]
        assert frames[-1]["turn"] == 2
        assert frames[-1]["request_id"] == "f"
        assert prompts(chat)[-1].endswith("user\nSCREEN CHECKED: a cat<|im_end|>\n<|im_start|>assistant\n")
        assert "ignored" not in prompts(chat)[-1]
        assert len(tool.requests) == 1


async def test_followup_needs_a_session_and_cancels_what_runs() -> None:
    chat = held()
    async with talking(chat) as line:
        follow = {"type": "followup", "analysis_text": "a"}
        assert (await line.ask({**follow, "request_id": 1}))["error_code"] == "no_active_session"
        await line.say(START)
        await chat.wait_for_requests(1)
        assert await line.ask(follow) == {"type": "done", "cancelled": True, "turn": 1}
        let_go(chat)
        await line.until_done(2)


async def test_ping_and_pong() -> None:
    async with talking() as line:
        assert await line.ask({"type": "ping", "request_id": 3}) == {"type": "pong", "request_id": "3"}
        await line.say({"type": "pong"})
        assert await line.ask({"type": "ping"}) == {"type": "pong"}
        assert len(line.frames) == 2


@pytest.mark.parametrize("end", ["__END__", '{"end": true}', '{"type": "end"}'])
async def test_end_closes(end: str) -> None:
    chat = held()
    async with talking(chat) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        await line.say(end)
        assert line.frames[-1] == {"type": "connection_closed", "reason": "client_request"}
        assert line.closed == 1000
        await chat.wait_idle()
        count = len(line.frames)
        await line.say({"type": "ping"})  # behind the end
        await line.say(START)
        assert len(line.frames) == count


async def test_close_codes_are_the_operators() -> None:
    policy = SessionPolicy(turn=TurnPolicy(), close_client_request=4001, close_unauthorized=4002)
    async with talking(policy=policy) as line:
        await line.say("__END__")
        assert line.closed == 4001
    async with talking(policy=policy) as line:
        await line.session.revoke()
        assert line.closed == 4002


# -- the ack ---------------------------------------------------------------------------------------


async def test_the_ack_of_a_start() -> None:
    async with talking() as line:
        ack = (await line.turn(gender="Girl", personality="Calm"))[0]
        now = ack.pop("now")
        assert ack == {
            "type": "ack", "for": "start", "ok": True, "session_id": "s1", "gender": "female", "personality": "calm",
            "chat_prompt": True, "turn": 1,
        }  # fmt: skip
        assert re.fullmatch(
            r"\d\d/\d\d/\d{4} (Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day [01]\d:[0-5]\d [AP]M "
            r"\((Morning|Afternoon|Evening|Night)\)",
            now,
        )


@pytest.mark.parametrize(("tool", "concurrent"), [(False, True), (True, True), (True, False)])
async def test_the_engines_work_while_the_ack_is_sent(tool: bool, concurrent: bool) -> None:
    """The ack is the first frame, and the engines have been asked when it leaves."""
    engines = [held(first=asyncio.Event())]
    if tool:
        engines.append(held(role=EngineRole.TOOL, first=asyncio.Event()))
    async with talking(*engines, turn=replace(PATIENT, concurrent=concurrent)) as line:
        asked: list[list[int]] = []
        pass_on = line.send

        async def send(text: str) -> None:
            asked.append([len(engine.requests) for engine in engines])
            await pass_on(text)

        line.send = send
        await line.say(START)
        assert line.types() == ["ack"]
        assert asked == [[1, 1] if tool and concurrent else [0, 1] if tool else [1]]

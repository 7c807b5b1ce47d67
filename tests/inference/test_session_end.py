"""Every end of a session: idle, revoked, draining, lost connection."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from accounts.usage import UsageBatch
from inference.engines.base import EngineRole
from inference.serving_context import SessionPolicy
from inference.tool_decision import ToolPolicy
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import START, Line, make_serving, talking
from tests.inference.session_lines import (
    PATIENT,
    SAID,
    held,
    let_go,
    settled,
)

# -- idle, revoked, draining, gone -----------------------------------------------------------------


@pytest.fixture
def quick() -> Iterator[SessionPolicy]:
    return SessionPolicy(turn=TurnPolicy(tool=ToolPolicy(hard_timeout_s=None)), idle_timeout_s=0.05)  # type: ignore[return-value]


async def closed(line: Line) -> None:
    await line.until(lambda _: line.closed is not None)


async def test_an_idle_connection_is_closed(quick: SessionPolicy) -> None:
    async with talking(policy=quick) as line:
        await closed(line)
        assert line.closed == 4000
        assert line.frames == []


async def test_a_running_turn_is_not_idle(quick: SessionPolicy) -> None:
    chat = held()
    async with talking(chat, policy=quick) as line:
        loop = asyncio.get_running_loop()
        await line.say(START)
        until = loop.time() + 4 * quick.idle_timeout_s
        passed = asyncio.Event()
        loop.call_at(until, passed.set)
        await passed.wait()
        assert line.closed is None
        let_go(chat)
        await line.until_done()
        assert line.closed is None
        await closed(line)
        assert line.closed == 4000


async def test_frames_put_off_the_idle_close(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("inference.idle_timer.time.monotonic", lambda: now)
    async with talking(policy=SessionPolicy(turn=TurnPolicy(), idle_timeout_s=100.0)) as line:
        now += 99
        await line.say({"type": "pong"})
        now += 99
        line.session._idle.start()
        assert line.closed is None
        now += 1
        line.session._idle.start()
        await closed(line)
        assert line.closed == 4000


async def test_a_revoked_key_is_shown_the_door() -> None:
    chat = held(2)
    async with talking(chat) as line:
        await line.say(START)
        await line.until(lambda frames: len(frames) == 3)
        await line.session.revoke()
        assert line.types() == ["ack", "token", "done", "error"]
        assert line.frames[-1]["error_code"] == "key_revoked"
        assert line.closed == 1008
        await chat.wait_idle()
        await line.say(START)
        await line.session.revoke()
        assert len(line.frames) == 5


async def test_a_start_that_meets_a_revocation_begins_nothing() -> None:
    chat = held()
    async with talking(chat) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        await asyncio.gather(line.session.revoke(), line.say(START))
        await settled()
        assert line.closed == 1008
        assert not line.session.running
        assert line.frames[-1]["error_code"] == "key_revoked"


async def test_draining_lets_the_running_turn_end() -> None:
    chat = held()
    async with talking(chat) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        line.serving.draining = True
        draining = asyncio.create_task(line.session.drain(30))
        await settled()
        frame = await line.ask(START)
        assert (frame["error_code"], frame["retry_in"]) == ("server_draining", 5)
        let_go(chat)
        await draining
        assert line.types()[-2:] == ["done", "draining"]
        assert line.frames[-1] == {"type": "draining", "reconnect_in": 1}
        assert line.text() == SAID
        assert line.closed == 1012


async def test_a_turn_that_outlives_the_draining_is_cancelled() -> None:
    chat = held(1)
    async with talking(chat) as line:
        await line.say(START)
        await line.until(lambda frames: len(frames) == 2)
        await line.session.drain(0.02)
        assert line.frames[-2:] == [
            {"type": "done", "cancelled": True, "turn": 1},
            {"type": "draining", "reconnect_in": 1},
        ]
        assert line.closed == 1012
        await chat.wait_idle()


async def test_engines_that_are_gone_refuse_a_start_and_leave_the_session() -> None:
    chat, tool = FakeEngine(reply=SAID), FakeEngine(EngineRole.TOOL, lambda _: "[]")
    async with talking(chat, tool, turn=PATIENT) as line:
        await line.turn()
        chat.die()
        for message in (START, {"type": "followup", "analysis_text": "a"}, {"type": "chat_prompt", "gender": "male"}):
            frame = await line.ask({**message, "request_id": 9})
            assert (frame["type"], frame["error_code"], frame["request_id"]) == ("error", "engine_unavailable", "9")
        assert (await line.ask({"type": "ping"}))["type"] == "pong"


async def test_the_log_of_a_turn_says_nothing_of_what_was_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "yap")
    async with talking(FakeEngine(reply=SAID)) as line:
        await line.turn(session_id="a b\nc\x1b[31m", user_utterance="my secret")
        await line.session.aclose()
    assert "turn key=test" in caplog.text
    assert "session=a?b?c??31m" in caplog.text
    assert "ended=stop" in caplog.text
    for text in ("my secret", SAID, "Hello"):
        assert text not in caplog.text
    policy = SessionPolicy(turn=TurnPolicy(), log_text=True)
    async with talking(FakeEngine(reply=SAID), policy=policy) as line:
        await line.turn(user_utterance="my secret")
        await line.session.aclose()
    assert "my secret" in caplog.text


async def test_turns_are_counted_in_the_ledger() -> None:
    written: list[Any] = []
    chat, tool = held(3), FakeEngine(EngineRole.TOOL, lambda _: "[]")
    async with talking(chat, tool, turn=PATIENT) as line:

        async def write(batch: UsageBatch) -> None:
            written.append(batch.sums)

        line.serving.ledger._write = write
        await line.say(START)
        await line.until(lambda frames: len(frames) == 5)
        await line.say(START)
        await line.say("__CANCEL__")
        let_go(chat)
        await line.turn()
        await line.ask({"type": "dance"})
        await settled()
        assert await line.serving.ledger.flush()
    total = next(iter(written[0].values()))
    for other in list(written[0].values())[1:]:
        total.add(other)
    counts = total.counts
    assert (counts["turns"], counts["cancels"], counts["barge_ins"]) == (3, 2, 1)
    assert counts["completion_tokens"] == 3 + len(chat.tokenizer.encode(SAID, add_special_tokens=False))
    assert dict(total.errors) == {"unknown_message_type": 1}


async def test_a_serving_process_is_ready_when_everything_is() -> None:
    chat = FakeEngine()
    serving = await make_serving(chat, None)
    seen = [serving.ready]
    for serving.started, serving.draining in ((True, True), (False, False), (True, False)):
        seen.append(serving.ready)
    await serving.engines.aclose()
    assert [*seen, serving.ready] == [True, False, False, True, False]


async def test_every_answer_is_one_json_object() -> None:
    texts: list[str] = []
    async with talking(FakeEngine(reply='quote " \\ \n \x00 😀')) as line:
        send = line.send

        async def spy(text: str) -> None:
            texts.append(text)
            await send(text)

        line.send = spy
        await line.turn(request_id='"}\n', session_id='"\x00')
    assert all(isinstance(json.loads(text), dict) for text in texts)
    assert json.loads(texts[0])["session_id"] == '"\x00'

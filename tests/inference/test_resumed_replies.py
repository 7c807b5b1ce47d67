"""A reply goes on when its connection is lost, and another connection gets what is missing."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any

import pytest

from inference.engines.base import EngineRole
from inference.resumable_sessions import ResumableSessions
from tests.engine.waiting import until
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import make_serving
from tests.inference import resumable_world
from tests.inference.resumable_world import AGAIN, SAID, World, resume
from tests.inference.session_lines import let_go

world = resumable_world.world


async def test_the_missing_text_comes_at_once_and_the_rest_as_it_comes(world: World) -> None:
    got = await world.lost(3)
    assert world.resumable.running == 1
    let_go(world.chat, 2)
    await until(lambda: world.chat.step is not None and world.chat.step.locked())
    async with world.line() as line:
        await line.say(resume(len(got) - 4, request_id="r"))
        await line.until(lambda frames: len(frames) > 1)
        assert line.frames[0] == {
            "type": "ack", "for": "resume", "ok": True, "session_id": "s1", "turn": 1, "request_id": "r",
        }  # fmt: skip
        first = line.frames[1]
        assert first["text"] == SAID[len(got) - 4 :][: len(first["text"])]
        assert len(first["text"]) > 4
        let_go(world.chat)
        await line.until_done()
        assert got[:-4] + line.text() == SAID
        assert line.types() == ["ack", "token", "final", "done"]
        assert line.frames[-2]["normalized_text"] == SAID
        assert {frame["turn"] for frame in line.frames} == {1}
        assert line.frames[-1]["usage"]["finish_reason"] == "stop"
        await line.say(AGAIN)  # the conversation goes on here, with the numbers of its turns
        await line.until_done(2)
        assert line.frames[-1]["turn"] == 2
        assert "resumed" not in next(f for f in line.frames if f["type"] == "ack" and f["turn"] == 2)
        conversation = line.session._state.conversation
        assert conversation is not None
        assert conversation.recent_lines(10) == ["hi", SAID, "and now?", SAID]
    assert len(world.chat.aborted) == 0


async def test_a_reply_that_ended_meanwhile_is_told_whole(world: World) -> None:
    got = await world.lost(2)
    let_go(world.chat)
    await world.chat.wait_idle()
    async with world.line() as line:
        await line.say(resume(len(got)))
        await line.until_done()
        assert line.types() == ["ack", "token", "final", "done"]
        assert got + line.text() == SAID


async def test_the_end_alone_was_missed(world: World) -> None:
    got = await world.lost(None)
    assert got == SAID
    async with world.line() as line:
        await line.say(resume(len(SAID)))
        await line.until_done()
        assert line.types() == ["ack", "final", "done"]


async def test_characters_may_be_utf16_units(world: World) -> None:
    await world.lost(None)
    async with world.line() as line:
        units = len(SAID[: SAID.index("😀") + 1].encode("utf-16-le")) // 2
        await line.say(resume(units, received_unit="utf16"))
        await line.until_done()
        assert line.text() == SAID[SAID.index("😀") + 1 :]


async def test_a_connection_that_only_seems_open_is_taken_over(world: World) -> None:
    world.chat.step = asyncio.Semaphore(3)
    async with world.line() as old, world.line() as new:
        await old.say({"type": "start", "session_id": "s1", "persona": "anna", "user_utterance": "hi"})
        await old.until(lambda frames: len(frames) >= 4)
        got = old.text()
        await new.say(resume(len(got)))
        let_go(world.chat)
        await new.until_done()
        assert got + new.text() == SAID
        await until(lambda: old.closed == 4001)
        frames = len(old.frames)
        await old.say(AGAIN)
        await new.say(AGAIN)
        await new.until_done(2)
        assert len(old.frames) == frames
        await old.session.aclose()
        assert len(world.serving.kept) == 0
        assert not world.serving.kept.callers()
    assert len(world.resumable) == 1
    assert world.said() == ["hi", SAID, "and now?", SAID]


async def test_a_send_that_hangs_on_the_lost_connection_is_not_sent_twice(world: World) -> None:
    world.chat.step = asyncio.Semaphore(1000)
    hangs, let = asyncio.Event(), asyncio.Event()
    async with world.line() as old, world.line() as new:
        receive = old.send

        async def send(text: str) -> None:
            if len(old.frames) == 3:
                hangs.set()
                await let.wait()
            await receive(text)

        old.send = send
        await old.say({"type": "start", "session_id": "s1", "persona": "anna", "user_utterance": "hi"})
        await hangs.wait()
        got = old.text()
        await new.say(resume(len(got)))
        let.set()
        await new.until_done()
        assert got + new.text() == SAID


async def test_a_start_ends_the_lost_reply(world: World) -> None:
    got = await world.lost(3)
    async with world.line() as line:
        let_go(world.chat)
        await line.say(AGAIN)
        await line.until_done()
        ack = line.frames[0]
        assert (ack["for"], ack["resumed"], ack["turns"], ack["turn"]) == ("start", True, 1, 1)
        conversation = line.session._state.conversation
        assert conversation is not None
        assert conversation.recent_lines(10) == ["hi", got, "and now?", SAID]
    assert len(world.chat.aborted) == 1


async def test_a_bad_start_ends_nothing(world: World) -> None:
    got = await world.lost(3)
    async with world.line() as line:
        assert (await line.ask({**AGAIN, "persona": "no-such"}))["error_code"] == "unknown_persona"
        let_go(world.chat)
        await line.say(resume(len(got)))
        await line.until_done()
        assert got + line.text() == SAID


async def test_resume_supersedes_a_running_turn(world: World) -> None:
    got = await world.lost(3)
    async with world.line() as line:
        await line.say({"type": "start", "session_id": "s2", "persona": "max", "user_utterance": "hi"})
        await line.say(resume(len(got)))
        let_go(world.chat)
        await line.until_done(2)
        assert line.frames[1 - 1]["session_id"] == "s2"
        assert next(f for f in line.frames if f["type"] == "done")["cancelled"]
        assert got + line.text() == SAID


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"session_id": None}, "missing_session_id"),
        ({"session_id": " "}, "missing_session_id"),
        ({"session_id": "s" * 257}, "invalid_message"),
        ({"session_id": "s2"}, "unknown_session"),
        *[({"turn": turn}, "invalid_message") for turn in (None, 0, -1, True, "1", 1.0)],
        ({"turn": 2}, "unknown_session"),
        ({"turn": 2**62}, "unknown_session"),
        *[({"received": received}, "invalid_message") for received in (None, -1, True, "1", 1.5, 10**6, 2**62)],
        ({"received_unit": "bytes"}, "invalid_message"),
    ],
)
async def test_a_bad_resume_loses_nothing(world: World, fields: dict[str, Any], code: str) -> None:
    got = await world.lost(3)
    async with world.line() as line:
        assert (await line.ask(resume(0) | fields))["error_code"] == code
        let_go(world.chat)
        await line.say(resume(len(got)))
        await line.until_done()
        assert got + line.text() == SAID


async def test_the_tool_decision_is_repeated_where_no_text_came() -> None:
    tool = FakeEngine(EngineRole.TOOL, lambda _: "[]")
    chat = FakeEngine(reply=SAID, step=asyncio.Semaphore(0))
    serving = await make_serving(chat, tool)
    world = World(serving, chat, ResumableSessions(100.0))
    async with world.line() as line:
        await line.say({"type": "start", "session_id": "s1", "persona": "anna", "user_utterance": "hi"})
        await line.until(lambda frames: frames[-1]["type"] == "toolcall")
    async with world.line() as line:
        await line.say(resume(0))
        let_go(chat, 3)
        await line.until(lambda frames: frames[-1]["type"] == "token")
        assert line.types() == ["ack", "toolcall", "token"]
        got = line.text()
    async with world.line() as line:
        await line.say(resume(len(got)))
        let_go(chat)
        await line.until_done()
        assert line.types() == ["ack", "token", "final", "done"]
    await world.resumable.aclose()
    await serving.engines.aclose()


def _enough(count: int, frames: list[dict[str, Any]]) -> bool:
    return len(frames) >= count or any(frame["type"] == "done" for frame in frames)


async def test_a_hundred_random_drops_lose_no_text(world: World) -> None:
    dice = random.Random(19)
    world.chat.step = None
    drops = conversation = 0
    while drops < 100:
        conversation += 1
        own = {"session_id": f"c{conversation}"}
        world.chat.step = asyncio.Semaphore(0)
        got, done, number, sent = "", False, 0, False
        while not done:
            async with world.line() as line:
                if sent:
                    await line.say({**resume(len(got)), **own})
                else:
                    await line.say({"type": "start", "persona": "anna", "user_utterance": "hi", **own})
                sent = True
                number += 1
                let_go(world.chat, steps := dice.randrange(0, 6))
                frames = dice.randrange(1, steps + 2)
                await line.until(partial(_enough, frames))
                got += line.text()
                done = "done" in line.types()
            drops += not done
            assert SAID.startswith(got)
        assert got == SAID
    assert drops >= 100
    assert not world.chat.aborted

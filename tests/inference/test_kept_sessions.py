"""The record of a session outlives its connection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from inference.kept_sessions import KeptSessions
from inference.serving_context import ServingContext
from inference.session_state import SessionState
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import START, UNLIMITED, Line, check_order, make_serving

SAID = "Hello there, how are you today?"
OTHER = replace(UNLIMITED, prefix="other")
AGAIN = {"type": "start", "session_id": "s1", "user_utterance": "and now?"}


@pytest_asyncio.fixture
async def serving() -> AsyncIterator[ServingContext]:
    serving = await make_serving(FakeEngine(reply=SAID), None)
    serving.kept = KeptSessions(300.0)
    yield serving
    await serving.engines.aclose()


@asynccontextmanager
async def connection(serving: ServingContext, **options: Any) -> AsyncIterator[Line]:
    line = Line(serving, **options)
    line.session.open()
    try:
        yield line
        check_order(line.frames)
    finally:
        await line.session.aclose()


def ack(line: Line) -> dict[str, Any]:
    return next(frame for frame in reversed(line.frames) if frame["type"] == "ack")


async def until_frames(line: Line, count: int) -> None:
    await line.until(lambda frames: len(frames) >= count)


async def test_the_next_connection_goes_on(serving: ServingContext) -> None:
    async with connection(serving) as line:
        await line.turn(user_utterance="hi")
        assert "resumed" not in ack(line)
        assert "turns" not in ack(line)
    assert len(serving.kept) == 1
    async with connection(serving) as line:
        await line.say(AGAIN)  # neither gender nor personality
        await line.until_done()
        assert (ack(line)["resumed"], ack(line)["turns"]) == (True, 1)
        assert (ack(line)["gender"], ack(line)["personality"]) == ("female", "calm")
        assert len(serving.kept) == 0
        await line.turn()
        assert "resumed" not in ack(line)  # only the first ack of the connection says so
    async with connection(serving) as line:
        await line.turn()
        assert ack(line)["turns"] == 3


async def test_the_prompt_is_the_one_of_a_connection_that_stayed() -> None:
    chat = FakeEngine(reply=SAID)
    serving = await make_serving(chat, None)
    serving.kept = KeptSessions(300.0)
    async with connection(serving) as line:
        await line.turn()
        await line.say(AGAIN)
        await line.until_done(2)
        stayed = list(chat.requests[-1].prompt_ids)
    serving.kept = KeptSessions(300.0)
    async with connection(serving) as line:
        await line.turn()
    async with connection(serving) as line:
        await line.say(AGAIN)
        await line.until_done()
    assert list(chat.requests[-1].prompt_ids) == stayed
    await serving.engines.aclose()


async def test_sampling_pending_text_and_heard_survive(serving: ServingContext) -> None:
    async with connection(serving) as line:
        await line.turn(sampling={"temperature": 0.5})
    async with connection(serving) as line:
        await line.say({**AGAIN, "heard": 5})
        await line.until_done()
        conversation = line.session._state.conversation
        assert conversation is not None
        assert conversation.recent_lines(4)[:2] == ["hi", SAID[:5]]
        assert line.session._state.sampling == {"temperature": 0.5}


async def test_history_text_wins_over_the_record(serving: ServingContext) -> None:
    async with connection(serving) as line:
        await line.turn()
    async with connection(serving) as line:
        await line.turn(history_text="")
        assert "resumed" not in ack(line)
        assert line.session._state.turns == 1
        assert len(serving.kept) == 0


async def test_another_key_finds_nothing(serving: ServingContext) -> None:
    async with connection(serving) as line:
        await line.turn()
    async with connection(serving, caller=OTHER) as line:
        assert (await line.ask(AGAIN))["error_code"] == "missing_gender"
        await line.turn()
        assert "resumed" not in ack(line)
    assert len(serving.kept) == 2


async def test_a_bad_start_loses_nothing(serving: ServingContext) -> None:
    async with connection(serving) as line:
        await line.turn()
    async with connection(serving) as line:
        assert (await line.ask({**AGAIN, "persona": "no-such"}))["error_code"] == "unknown_persona"
    assert len(serving.kept) == 1
    async with connection(serving) as line:
        await line.turn()
        assert ack(line)["turns"] == 1


async def test_end_forgets(serving: ServingContext) -> None:
    async with connection(serving) as line:
        await line.turn()
        await line.say({"type": "end"})
    assert len(serving.kept) == 0


async def test_a_revoked_session_is_not_kept(serving: ServingContext) -> None:
    async with connection(serving) as line:
        await line.turn()
        await line.session.revoke()
    assert len(serving.kept) == 0


async def test_rights_are_those_of_the_new_connection(serving: ServingContext) -> None:
    async with connection(serving) as line:
        await line.turn(chat_prompt="You are mine.")
    async with connection(serving, caller=replace(UNLIMITED, own_chat_prompt=False)) as line:
        assert (await line.ask(AGAIN))["type"] == "error"
    assert len(serving.kept) == 1


async def test_off_keeps_nothing(serving: ServingContext) -> None:
    serving.kept = KeptSessions(0)
    async with connection(serving) as line:
        await line.turn()
    assert len(serving.kept) == 0


async def test_a_connection_that_took_the_record_is_the_only_one(serving: ServingContext) -> None:
    async with connection(serving) as line:
        await line.turn()
    state = serving.kept.find(UNLIMITED, "s1")
    assert state is not None
    assert serving.kept.take(UNLIMITED, state)
    assert not serving.kept.take(UNLIMITED, state)


async def test_a_hundred_random_drops_lose_no_text() -> None:
    chat, dice = FakeEngine(reply=SAID), random.Random(19)
    serving = await make_serving(chat, None)
    serving.kept = KeptSessions(300.0)
    cut = set()
    for number in range(100):
        own = {"session_id": f"s{number}"}
        async with connection(serving) as line:
            await line.turn(**own)
            frames = len(line.frames)
            steps = dice.randrange(1, 5)
            chat.step = asyncio.Semaphore(steps)
            await line.say({**AGAIN, **own})
            await until_frames(line, frames + 1 + steps)
            got = "".join(frame["text"] for frame in line.frames[frames:] if frame["type"] == "token")
            cut.add(len(got))
        chat.step = None
        async with connection(serving) as line:
            await line.say({**AGAIN, **own})
            await line.until_done()
            assert (ack(line)["resumed"], ack(line)["turns"]) == (True, 2)
            conversation = line.session._state.conversation
            assert conversation is not None
            assert conversation.recent_lines(6) == ["hi", SAID, "and now?", got, "and now?", SAID]
    assert len(cut) > 2
    assert max(cut) < len(SAID)
    await serving.engines.aclose()


# -- the store -------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def spoken(serving: ServingContext, session_id: str) -> SessionState:
    line = Line(serving)
    await line.say({**START, "session_id": session_id})
    await line.until_done()
    return line.session._state


async def test_records_expire(serving: ServingContext, clock: Clock) -> None:
    kept = KeptSessions(10.0, clock=clock)
    kept.put(UNLIMITED, await spoken(serving, "a"))
    clock.now = 9.0
    assert kept.find(UNLIMITED, "a") is not None
    clock.now = 10.0
    kept.expire()
    assert (len(kept), kept.tokens) == (0, 0)


async def test_the_oldest_go_first_beyond_the_limit(serving: ServingContext, clock: Clock) -> None:
    states = [await spoken(serving, name) for name in "abc"]
    kept = KeptSessions(10.0, max_tokens=2 * states[0].size, clock=clock)
    for state in states:
        kept.put(UNLIMITED, state)
    assert kept.find(UNLIMITED, "a") is None
    assert kept.find(UNLIMITED, "b") is states[1]
    assert kept.tokens == 2 * states[0].size
    kept.put(UNLIMITED, states[1])  # put again: the newest now
    assert kept.tokens == 2 * states[0].size


async def test_a_key_displaces_no_records_of_others(serving: ServingContext, clock: Clock) -> None:
    states = [await spoken(serving, name) for name in "abcdef"]
    kept = KeptSessions(10.0, max_tokens=3 * states[0].size, clock=clock)
    kept.put(OTHER, states[0])
    for state in states[1:]:
        kept.put(UNLIMITED, state)
    assert kept.find(OTHER, "a") is states[0]
    assert [name for name in "bcdef" if kept.find(UNLIMITED, name) is not None] == ["e", "f"]
    clock.now = 10.0
    kept.expire()
    assert (len(kept), kept.tokens) == (0, 0)


async def test_a_record_beyond_the_limit_is_not_kept(serving: ServingContext) -> None:
    kept = KeptSessions(10.0, max_tokens=10)
    kept.put(UNLIMITED, await spoken(serving, "a"))
    assert (len(kept), kept.tokens) == (0, 0)


async def test_a_revoked_keys_records_are_dropped(serving: ServingContext) -> None:
    kept = KeptSessions(10.0)
    kept.put(UNLIMITED, await spoken(serving, "a"))
    kept.put(OTHER, await spoken(serving, "a"))
    kept.revoke(UNLIMITED)
    assert kept.callers() == {OTHER}

"""Another process, or a restarted one, goes on with a session from its copy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from accounts.callers import Caller
from inference.engines.base import EngineRole
from inference.kept_sessions import KeptSessions
from inference.serving_context import ServingContext
from inference.session_copies import SessionCopies
from tests.fakes.copies import MemoryCopies
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import MAX, START, UNLIMITED, Line, catalogue, make_serving

SAID = "Hello there, how are you today? 😀"
AGAIN = {"type": "start", "session_id": "s1", "user_utterance": "and now?"}


class Fleet:
    """Processes that share a store."""

    def __init__(self) -> None:
        self.store = MemoryCopies()
        self._stack = AsyncExitStack()

    async def process(self, tool: bool = True, secret: str = "s", **options: Any) -> ServingContext:
        engine = FakeEngine(EngineRole.TOOL, lambda _: "[]") if tool else None
        serving = await make_serving(FakeEngine(reply=SAID), engine, **options)
        self._stack.push_async_callback(serving.engines.aclose)
        copies = SessionCopies(self.store, secret, lambda: serving.resolver)
        serving.kept = KeptSessions(300.0, copies=copies)
        return serving

    async def aclose(self) -> None:
        await self._stack.aclose()


@pytest_asyncio.fixture
async def fleet() -> AsyncIterator[Fleet]:
    fleet = Fleet()
    yield fleet
    await fleet.aclose()


@asynccontextmanager
async def line_to(serving: ServingContext, caller: Caller = UNLIMITED) -> AsyncIterator[Line]:
    line = Line(serving, caller)
    line.session.open()
    yield line
    await line.session.aclose()


def ack(line: Line) -> dict[str, Any]:
    return next(frame for frame in reversed(line.frames) if frame["type"] == "ack")


def prompt(serving: ServingContext, role: EngineRole = EngineRole.CHAT) -> list[int]:
    engine = serving.engines.engine(role)
    assert isinstance(engine, FakeEngine)
    return list(engine.requests[-1].prompt_ids)


async def go_on(serving: ServingContext, **fields: Any) -> dict[str, Any]:
    async with line_to(serving) as line:
        await line.say({**AGAIN, **fields})
        await line.until_done()
        return ack(line)


async def test_another_process_goes_on_with_the_same_prompt(fleet: Fleet) -> None:
    one, other = await fleet.process(), await fleet.process()
    async with line_to(one) as line:
        await line.turn(sampling={"temperature": 0.5}, user_identity="Ada")
        await line.say(AGAIN)
        await line.until_done(2)
        await line.say({**AGAIN, "user_utterance": "third"})
        await line.until_done(3)
    stayed = prompt(one), prompt(one, EngineRole.TOOL)
    fleet.store.copies.clear()
    async with line_to(one) as line:
        one.kept = KeptSessions(0)  # killed: what was copied after the turns is all there is
        one.kept = KeptSessions(300.0, copies=SessionCopies(fleet.store, "s", lambda: one.resolver))
        await line.turn(sampling={"temperature": 0.5}, user_identity="Ada", history_text="")
        await line.say(AGAIN)
        await line.until_done(2)
        async with line_to(other) as there:
            await there.say({**AGAIN, "user_utterance": "third"})
            await there.until_done()
            assert (ack(there)["resumed"], ack(there)["turns"]) == (True, 2)
            assert there.session._state.sampling == {"temperature": 0.5}
    assert (prompt(other), prompt(other, EngineRole.TOOL)) == stayed


async def test_the_newest_record_wins_wherever_it_is(fleet: Fleet) -> None:
    one, other = await fleet.process(), await fleet.process()
    async with line_to(one) as line:
        await line.turn()
    for number in range(1, 7):  # each process has an older record of its own
        answer = await go_on((other, one)[number % 2 == 0])
        assert answer["turns"] == number


async def test_a_connection_that_is_noticed_late_does_not_overwrite(fleet: Fleet) -> None:
    one, other = await fleet.process(), await fleet.process()
    async with line_to(one) as old:
        await old.turn()
        assert (await go_on(other))["turns"] == 1
        assert (await go_on(other))["turns"] == 2
    assert (await go_on(one))["turns"] == 3


async def test_end_and_revocation_delete_the_copy(fleet: Fleet) -> None:
    one = await fleet.process()
    for forget in ("end", "revoke", "revoke kept"):
        async with line_to(one) as line:
            await line.turn()
            assert len(fleet.store.copies) == 1
            if forget == "end":
                await line.say({"type": "end"})
            elif forget == "revoke":
                await line.session.revoke()
        one.kept.revoke(UNLIMITED)
        assert fleet.store.copies == {}


async def test_another_key_or_secret_finds_nothing(fleet: Fleet) -> None:
    one, stranger = await fleet.process(), await fleet.process(secret="t")
    async with line_to(one) as line:
        await line.turn()
    async with line_to(stranger) as line:
        assert (await line.ask(AGAIN))["error_code"] == "missing_gender"
    async with line_to(await fleet.process(), replace(UNLIMITED, prefix="other")) as line:
        assert (await line.ask(AGAIN))["error_code"] == "missing_gender"


async def test_nothing_readable_is_stored(fleet: Fleet) -> None:
    async with line_to(await fleet.process()) as line:
        await line.turn(user_utterance="a secret of mine")
    ((name, (_, sealed)),) = fleet.store.copies.items()
    assert b"secret" not in sealed
    assert "s1" not in name
    assert "test" not in name


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:5], lambda b: bytes(len(b)), lambda b: b""])
async def test_a_damaged_copy_is_no_copy(fleet: Fleet, damage: Callable[[bytes], bytes]) -> None:
    one, other = await fleet.process(), await fleet.process()
    async with line_to(one) as line:
        await line.turn()
    ((name, (version, sealed)),) = fleet.store.copies.items()
    fleet.store.copies[name] = (version, damage(sealed))
    async with line_to(other) as line:
        await line.turn()
        assert "resumed" not in ack(line)


async def test_a_copy_of_another_session_is_no_copy(fleet: Fleet) -> None:
    one, other = await fleet.process(), await fleet.process()
    async with line_to(one) as line:
        await line.turn()
        await line.turn(session_id="s2")
    names = list(fleet.store.copies)
    fleet.store.copies[names[0]] = fleet.store.copies[names[1]]
    async with line_to(other) as line:
        await line.turn()
        assert "resumed" not in ack(line)


async def test_other_engines_encode_the_text_again(fleet: Fleet) -> None:
    one, other = await fleet.process(), await fleet.process(tool=False)
    async with line_to(one) as line:
        await line.turn()
    answer = await go_on(other)
    assert answer["turns"] == 1
    engine = other.engines.engine(EngineRole.CHAT)
    assert SAID in str(engine.tokenizer.decode(prompt(other)))


async def test_a_persona_that_is_not_there_is_no_record(fleet: Fleet) -> None:
    one, other = await fleet.process(), await fleet.process(catalogue=catalogue(MAX))
    async with line_to(one) as line:
        await line.turn()
    async with line_to(other) as line:
        assert (await line.ask(AGAIN))["error_code"] == "missing_gender"


async def test_redis_is_asked_once_for_each_session(fleet: Fleet) -> None:
    one = await fleet.process()
    async with line_to(one) as line:
        await line.turn()
        await line.turn()
        await line.say({"type": "followup", "analysis_text": "a"})
        await line.until_done(3)
        assert fleet.store.reads == 1
    async with line_to(one) as line:
        await line.say({**START, "history_text": ""})
        await line.until_done()
        assert fleet.store.reads == 1

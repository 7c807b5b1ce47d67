from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from accounts.callers import Caller, Limits
from accounts.connection_slots import MemoryConnectionSlots
from inference import consumer
from inference.admission import Admission
from inference.serving_context import ServingContext
from inference.session_registry import SessionRegistry
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import FREE, START, UNLIMITED, make_serving
from tests.fakes.socket import Socket, chat_application

SAID = "Hello there, how are you today?"
KEY = "key-one"


@dataclass
class Server:
    """A consumer, its doors and everything behind them."""

    serving: ServingContext
    slots: MemoryConnectionSlots
    registry: SessionRegistry
    admission: Admission
    chat: FakeEngine
    callers: dict[str, Caller]

    def socket(self, query: str = f"api_key={KEY}", **options: Any) -> Socket:
        return Socket(chat_application(self.serving, self.admission, self.registry), query, **options)

    async def connect(self, query: str = f"api_key={KEY}", **options: Any) -> Socket:
        socket = await self.socket(query, **options).connect()
        socket.say({"type": "ping"})
        await socket.until_type("pong")  # it has been let in
        socket.frames.clear()
        return socket

    async def taken(self) -> int:
        return (await self.slots.snapshot())["active"]

    async def free(self) -> None:
        """Everything that a connection held has been given back."""
        async with asyncio.timeout(1):
            await self.chat.wait_idle()
        assert await self.taken() == 0
        assert len(self.registry) == 0
        assert self.registry.running == 0


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    chat = FakeEngine(reply=SAID)
    serving = await make_serving(chat, None)
    own = Limits(FREE, FREE, FREE, connections=1)
    callers = {KEY: UNLIMITED, "key-two": replace(UNLIMITED, prefix="two", limits=own)}

    async def find(key: str, network: str) -> Caller | None:
        return callers.get(key)

    slots = MemoryConnectionSlots(2)
    yield Server(serving, slots, SessionRegistry(), Admission(find, slots, 0.02, 1008, 1013), chat, callers)
    await serving.engines.aclose()


async def refused(socket: Socket, code: str, close: int) -> dict[str, Any]:
    """Accepted first, then exactly one error, then closed."""
    await socket.connect()
    await socket.ended()
    assert socket.task is not None
    assert socket.task.exception() is None
    assert socket.accepted is not None
    assert [(frame["type"], frame["error_code"]) for frame in socket.frames] == [("error", code)]
    assert socket.closed is not None
    assert socket.closed["code"] == close
    return socket.frames[0]


# -- the key ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"query": f"api_key={KEY}"},
        {"query": f"x=1&api_key={KEY}"},
        {"query": "", "headers": [("X-API-Key", KEY)]},
        {"query": "", "headers": [("authorization", f"Bearer {KEY}")]},
        {"query": "", "headers": [("Authorization", f"bearer  {KEY}")]},
        {"query": "", "subprotocols": ["yap.v1", f"yap.key.{KEY}"]},
        {"query": f"api_key={KEY}", "headers": [("X-API-Key", KEY)]},
    ],
)
async def test_where_a_key_may_be(server: Server, options: dict[str, Any]) -> None:
    socket = await server.connect(**options)
    socket.say({"type": "ping"})
    await socket.until_type("pong")
    assert socket.accepted == {
        "type": "websocket.accept",
        "subprotocol": "yap.v1" if "subprotocols" in options else None,
    }
    await socket.leave()
    await server.free()


@pytest.mark.parametrize(
    "options",
    [
        {"query": ""},
        {"query": "api_key="},
        {"query": "api_key=wrong"},
        {"query": f"key={KEY}"},
        {"query": "", "headers": [("X-API-Key", "wrong")]},
        {"query": "", "headers": [("Authorization", f"Basic {KEY}")]},
        {"query": "", "subprotocols": ["yap.v1"]},
        {"query": "api_key=key-two", "headers": [("X-API-Key", KEY)]},
        {"query": f"api_key={KEY}&api_key=key-two"},
        {"query": f"api_key={KEY}", "subprotocols": ["yap.v1", "yap.key.wrong"]},
    ],
)
async def test_no_key_a_wrong_key_or_two_of_them(server: Server, options: dict[str, Any]) -> None:
    frame = await refused(server.socket(**options), "authentication_failed", 1008)
    assert KEY not in str(frame)
    await server.free()


# -- the admission --------------------------------------------------------------------------------------


async def test_a_full_server(server: Server) -> None:
    first, second = await server.connect(), await server.connect()
    frame = await refused(server.socket(), "server_at_capacity", 1013)
    assert frame["capacity"] == {"active": 2, "max": 2, "available": 0, "at_capacity": True}
    server.admission = replace(server.admission, acquire_timeout=5.0)
    waiting = await server.socket().connect()
    await first.leave()
    waiting.say({"type": "ping"})
    await waiting.until_type("pong")
    await asyncio.gather(second.leave(), waiting.leave())
    await server.free()


async def test_a_keys_own_places(server: Server) -> None:
    first = await server.connect("api_key=key-two")
    frame = await refused(server.socket("api_key=key-two"), "server_at_capacity", 1013)
    assert frame["capacity"] == {"active": 1, "max": 1, "available": 0, "at_capacity": True}
    other = await server.connect()
    await asyncio.gather(first.leave(), other.leave())
    again = await server.connect("api_key=key-two")
    await again.leave()
    await server.free()


async def test_engines_that_are_not_ready(server: Server) -> None:
    server.serving.started = False
    frame = await refused(server.socket(), "server_not_ready", 1013)
    assert frame["retry_in"] >= 1
    server.serving.started = True
    server.chat.die()
    async with asyncio.timeout(5):
        while server.serving.engines.ready:  # noqa: ASYNC110 - the service watches every half second
            await asyncio.sleep(0.01)
    assert (await refused(server.socket(), "server_not_ready", 1013))["retry_in"] >= 1
    await server.free()


async def test_a_draining_server(server: Server) -> None:
    server.serving.draining = True
    frame = await refused(server.socket(), "server_draining", 1012)
    assert frame["retry_in"] >= 1
    await refused(server.socket(""), "authentication_failed", 1008)  # tells a stranger nothing
    await server.free()


async def test_a_server_that_drains_while_a_client_waits_for_a_place(server: Server) -> None:
    first, second = await server.connect(), await server.connect()
    server.admission = replace(server.admission, acquire_timeout=5.0)
    waiting = await server.socket().connect()
    server.serving.draining = True
    await first.leave()
    await waiting.ended()
    assert [frame["error_code"] for frame in waiting.frames] == ["server_draining"]
    await second.leave()
    await server.free()


async def test_a_lookup_that_fails(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def away(key: str, network: str) -> Caller | None:
        raise OSError("database at /secret/slot is away")

    server.admission = replace(server.admission, find_caller=away)
    frame = await refused(server.socket(), "internal_error", 1013)
    assert "secret" not in str(frame)
    assert frame["reference"] in caplog.text
    await server.free()


async def test_close_codes_are_the_operators(server: Server) -> None:
    server.admission = replace(server.admission, close_unauthorized=4401, close_busy=4013)
    await refused(server.socket(""), "authentication_failed", 4401)
    server.serving.started = False
    await refused(server.socket(), "server_not_ready", 4013)


# -- a conversation --------------------------------------------------------------------------------


async def test_a_conversation(server: Server) -> None:
    socket = await server.connect()
    assert await server.taken() == 1
    assert len(server.registry) == 1
    socket.say(START)
    await socket.until_type("done")
    assert "".join(frame["text"] for frame in socket.frames if frame["type"] == "token") == SAID
    socket.say(b"\x00")
    frame = await socket.until_type("error")
    assert frame["error_code"] == "invalid_message"
    socket.say("__END__")
    await socket.until(lambda: socket.closed is not None)
    assert socket.closed == {"type": "websocket.close", "code": 1000}
    assert socket.frames[-1]["type"] == "connection_closed"
    await socket.leave()
    await server.free()


async def test_a_frame_does_not_wait_for_generation(server: Server) -> None:
    server.chat.first = asyncio.Event()
    socket = await server.connect()
    socket.say(START)
    await server.chat.wait_for_requests(1)
    socket.say({"type": "ping"})
    await socket.until_type("pong")
    socket.say("__CANCEL__")
    assert (await socket.until_type("done"))["cancelled"] is True
    await socket.leave()
    await server.free()


# -- every way a connection can end ----------------------------------------------------------------


async def speaking(server: Server) -> Socket:
    """A connection in the middle of a turn."""
    server.chat.step = asyncio.Semaphore(2)
    socket = await server.connect()
    socket.say(START)
    await socket.until(lambda: len(socket.frames) == 3)
    assert server.registry.running == 1
    return socket


async def test_the_client_vanishes_mid_turn(server: Server) -> None:
    socket = await speaking(server)
    await socket.leave()
    await server.free()
    assert len(server.chat.aborted) == 1


async def test_the_server_cancels_the_application(server: Server) -> None:
    socket = await speaking(server)
    assert socket.task is not None
    socket.task.cancel()
    await socket.ended()
    assert socket.task.cancelled()
    await server.free()


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("after close")])
async def test_sending_fails(server: Server, error: Exception) -> None:
    socket = await speaking(server)
    socket.broken = error
    assert server.chat.step is not None
    server.chat.step.release()
    await socket.ended()
    assert socket.task is not None
    assert not socket.task.cancelled()
    assert socket.task.exception() is None
    await server.free()


async def test_a_client_that_takes_nothing_is_let_go(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "SEND_TIMEOUT_S", 0.02)
    socket = await speaking(server)
    never = asyncio.Event()

    async def stuck(message: dict[str, Any]) -> None:
        await never.wait()

    assert server.chat.step is not None
    session = next(iter(server.registry))
    session._send.__self__.base_send = stuck  # type: ignore[attr-defined]
    server.chat.step.release()
    await socket.ended()
    await server.free()


async def test_no_clock_is_set_for_a_frame_that_is_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once() -> None:
        return None

    monkeypatch.setattr(asyncio, "timeout", None)
    await consumer._send_with_timeout(at_once())


async def test_a_frame_that_waits_is_sent_when_there_is_room() -> None:
    room, log = asyncio.Event(), []

    async def sending() -> None:
        await asyncio.sleep(0)
        await room.wait()
        log.append("sent")
        raise OSError

    task = asyncio.create_task(consumer._send_with_timeout(sending()))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not log
    room.set()
    with pytest.raises(OSError):  # noqa: PT011 - the very one
        await task
    assert log == ["sent"]


async def test_a_frame_that_waits_can_be_cancelled() -> None:
    log = []

    async def sending() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("left")

    task = asyncio.create_task(consumer._send_with_timeout(sending()))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["left"]


async def test_a_session_that_breaks(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = await speaking(server)
    session = next(iter(server.registry))

    async def broken(text: str | None) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(session, "receive", broken)
    socket.say({"type": "ping"})
    await socket.ended()
    assert socket.task is not None
    assert isinstance(socket.task.exception(), ZeroDivisionError)
    await server.free()


async def test_gone_before_it_was_let_in(server: Server) -> None:
    first, second = await server.connect(), await server.connect()
    server.admission = replace(server.admission, acquire_timeout=5.0)
    waiting = await server.socket().connect()
    assert waiting.task is not None
    waiting.task.cancel()
    await waiting.ended()
    await asyncio.gather(first.leave(), second.leave())
    await server.free()


async def test_gone_before_it_began(server: Server) -> None:
    socket = server.socket()
    socket._inbox.put_nowait({"type": "websocket.disconnect"})
    socket.task = asyncio.create_task(socket._application(socket._scope, socket._inbox.get, socket._send))
    await socket.ended()
    assert socket.accepted is None
    await server.free()


async def test_revoked_and_idle_give_back_too(server: Server) -> None:
    server.serving.policy = replace(server.serving.policy, idle_timeout_s=0.02)
    idle = await server.connect()
    await idle.until(lambda: idle.closed is not None)
    assert idle.closed is not None
    assert idle.closed["code"] == 4000
    await idle.leave()
    server.serving.policy = replace(server.serving.policy, idle_timeout_s=60)
    socket = await speaking(server)
    await next(iter(server.registry)).revoke()
    assert socket.closed is not None
    assert socket.closed["code"] == 1008
    await socket.leave()
    await server.free()


async def test_a_hundred_that_come_and_go(server: Server) -> None:
    server.admission = replace(server.admission, acquire_timeout=5.0)

    async def visit(number: int) -> None:
        socket = await server.connect()
        if number % 4 == 0:
            assert socket.task is not None
            socket.task.cancel()
            await socket.ended()
            return
        socket.say(START)
        if number % 4 == 1:
            await socket.until(lambda: bool(socket.frames))
        elif number % 4 == 2:
            await socket.until_type("done")
        await socket.leave()

    await asyncio.gather(*(visit(number) for number in range(100)))
    await server.free()


async def test_the_log_names_the_connection_and_never_the_key(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    socket = await server.connect()
    session = next(iter(server.registry))
    await socket.leave()
    await refused(server.socket("api_key=wrong-key"), "authentication_failed", 1008)
    assert f"open key=test conn={session.connection}" in caplog.text
    assert f"close key=test conn={session.connection}" in caplog.text
    assert "refused authentication_failed from=127.0.0.1" in caplog.text
    assert KEY not in caplog.text
    assert "wrong-key" not in caplog.text

"""Every end of a WebSocket connection."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from inference import bounded_send
from tests.fakes.serving import START
from tests.fakes.socket import Socket
from tests.inference import consumer_server
from tests.inference.consumer_server import (
    KEY,
    Server,
    refused,
)

server = consumer_server.server

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


async def test_a_client_that_takes_no_frames_is_disconnected(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_send, "SEND_TIMEOUT_S", 0.02)
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
    await bounded_send.send_in_time(at_once())


async def test_a_frame_that_waits_is_sent_when_there_is_room() -> None:
    room, log = asyncio.Event(), []

    async def sending() -> None:
        await asyncio.sleep(0)
        await room.wait()
        log.append("sent")
        raise OSError

    task = asyncio.create_task(bounded_send.send_in_time(sending()))
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

    task = asyncio.create_task(bounded_send.send_in_time(sending()))
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

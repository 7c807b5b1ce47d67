"""The count of WebSockets without a valid key: where it begins, and all the ways in which it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inference.admission import end_count
from yapserver import unauthenticated_sockets
from yapserver.daphne_handshake import EXTENSION
from yapserver.unauthenticated_sockets import UnauthenticatedSockets

Message = dict[str, Any]


class Line:
    """One connection to the middleware."""

    def __init__(self, sockets: UnauthenticatedSockets, address: str, *, extension: bool = True) -> None:
        self.sent: list[Message] = []
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.inbox.put_nowait({"type": "websocket.connect"})
        self.go_on = asyncio.Event()  # the application ends
        self.scope: Message = {"type": "websocket", "client": [address, 5], "headers": []}
        if extension:
            self.scope["extensions"] = {EXTENSION: {}}
        self.task = asyncio.create_task(sockets(self._application, self.scope, self.inbox.get, self._send))

    async def _application(self, scope: Message, receive: Any, send: Any) -> None:
        self.scope = scope
        await receive()
        await send({"type": "websocket.accept"})
        await self.go_on.wait()

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def answered(self) -> int:
        """Return 101, or the status of a refusal."""
        async with asyncio.timeout(5):
            while not self.sent:  # noqa: ASYNC110 - the application answers within a few steps of the loop
                await asyncio.sleep(0)
        kind = self.sent[0]["type"]
        return 101 if kind == "websocket.accept" else 403 if kind == "websocket.close" else int(self.sent[0]["status"])

    async def end(self) -> None:
        """End the application, then the socket."""
        self.go_on.set()
        self.inbox.put_nowait({"type": "websocket.disconnect"})
        async with asyncio.timeout(5):
            await self.task


async def test_sockets_count_until_their_key_is_valid_or_they_are_gone() -> None:
    sockets = UnauthenticatedSockets(2, trust_proxy=False)
    one, two = Line(sockets, "10.0.0.1"), Line(sockets, "10.0.0.1")
    assert (await one.answered(), await two.answered()) == (101, 101)
    assert await Line(sockets, "10.0.0.1").answered() == 429
    assert await Line(sockets, "10.0.0.1", extension=False).answered() == 403
    assert await Line(sockets, "10.0.0.2").answered() == 101
    end_count(one.scope)
    end_count(one.scope)  # once
    three = Line(sockets, "10.0.0.1")
    assert await three.answered() == 101
    assert await Line(sockets, "10.0.0.1").answered() == 429
    two.go_on.set()  # refused, and not gone
    assert await Line(sockets, "10.0.0.1").answered() == 429
    await two.end()
    assert await Line(sockets, "10.0.0.1").answered() == 101
    await one.end()
    assert await Line(sockets, "10.0.0.1").answered() == 429
    three.task.cancel()
    await asyncio.wait({three.task})
    assert await Line(sockets, "10.0.0.1").answered() == 101


async def test_a_refused_socket_that_stays_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unauthenticated_sockets, "LINGER_S", 0.01)
    sockets = UnauthenticatedSockets(1, trust_proxy=False)
    line = Line(sockets, "10.0.0.1")
    await line.answered()
    line.go_on.set()
    async with asyncio.timeout(5):
        await line.task
    assert await Line(sockets, "10.0.0.1").answered() == 101


async def test_without_a_limit_nothing_is_counted() -> None:
    sockets = UnauthenticatedSockets(0, trust_proxy=False)
    assert {await Line(sockets, "10.0.0.1").answered() for _ in range(500)} == {101}

"""Limits the WebSockets without a valid key that one network holds at once.

A socket counts from its handshake until its key is accepted or the socket ends.

A socket whose key is refused counts until it is gone: a client may leave the server's close frame unanswered.
:mod:`yapserver.http_limits` counts sockets up to the handshake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from accounts.addresses import client_address_of, network_of
from inference.admission import COUNTED
from yapserver.daphne_handshake import EXTENSION
from yapserver.http_limits import SocketCounter

LINGER_S = 15.0
"""The server waits this long for the end of a refused socket; both ASGI servers have cut the socket by then."""
RETRY_AFTER_S = 1
_REFUSAL = (
    b'{"error":{"message":"Too many connections of this address without a valid key.",'
    b'"type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}'
)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Coroutine[Any, Any, None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class UnauthenticatedSockets:
    """ASGI middleware of WebSocket applications.

    Args:
        limit: Sockets without a valid key that one network may hold; 0: no limit.
        trust_proxy: Whether a proxy in front names the client's address.
    """

    def __init__(self, limit: int, *, trust_proxy: bool) -> None:
        self._counter = SocketCounter(limit)
        self._trust_proxy = trust_proxy

    async def __call__(self, application: Application, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI); ``scope`` lets the application end the count."""
        network = network_of(client_address_of(scope, self._trust_proxy))
        if not self._counter.add(network):
            await _refuse(scope, receive, send)
            return
        counted = True

        def release() -> None:
            nonlocal counted
            if counted:
                counted = False
                self._counter.remove(network)

        try:
            await application({**scope, COUNTED: release}, receive, send)
            if counted:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        while (await receive())["type"] != "websocket.disconnect" or not _is_gone(receive):
                            pass
        finally:
            release()


def _is_gone(receive: Receive) -> bool:
    """Whether a disconnect is the end of the socket: uvicorn reports the application's own close as one too."""
    return bool(getattr(getattr(receive, "__self__", None), "disconnected", True))


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse the handshake: 429, or the server's own 403 where it takes no other status."""
    await receive()  # websocket.connect
    if EXTENSION not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})
        return
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"%d" % RETRY_AFTER_S)]
    await send({"type": f"{EXTENSION}.start", "status": 429, "headers": headers})
    await send({"type": f"{EXTENSION}.body", "body": _REFUSAL})

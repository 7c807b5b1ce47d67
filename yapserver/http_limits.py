"""Bounds of one HTTP request: body size, header size, time to arrive, and open sockets of one address.

``yapserver.daphne_limits`` and ``yapserver.uvicorn_limits`` enforce all of them while the request arrives.
:class:`BodyLimit` enforces the body size in the ASGI application, for every other server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

HEADER_DEADLINE_S = 20.0  # from the first byte of a request (or the connect) to the blank line behind its headers
BODY_DEADLINE_S = 60.0  # from there to the last byte of the body
LINGER_S = 2.0  # a refused client may read its answer for this long
LINGER_BYTES = 16 * 1024 * 1024  # and may send this much more, which is thrown away; closing at once would reset it
MAX_HEADER_BYTES = 16 * 1024  # request line and headers; Twisted's own limit, applied to uvicorn too
KIB, MIB = 1024, 1024 * 1024
# The first prefix that fits a path decides. The largest legitimate upload is a character card of 10 MiB.
_BODY_BYTES = (("/admin/login", 64 * KIB), ("/admin/", 11 * MIB), ("/v1/", MIB), ("/tokenize", MIB), ("", 64 * KIB))

# Percent-encoded forms cost much more to parse than their size suggests; the admin sends its large ones as multipart.
URLENCODED_BYTES = 256 * KIB

# Django's form and OpenAI's in one: the answer is written before the request's path is looked at.
TOO_LARGE = (
    b'{"detail":"The request body is too large.","error":{"message":"The request body is too large.",'
    b'"type":"invalid_request_error","param":null,"code":"request_too_large"}}'
)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Asgi = Callable[..., Awaitable[None]]


def max_body_bytes(path: str, content_type: bytes = b"") -> int:
    """Return the largest request body that is accepted at a path, in bytes."""
    limit = next(limit for prefix, limit in _BODY_BYTES if path.startswith(prefix))
    is_urlencoded = content_type.lower().startswith(b"application/x-www-form-urlencoded")
    return min(limit, URLENCODED_BYTES) if is_urlencoded else limit


def raw_response(status: str, body: bytes, content_type: str = "application/json") -> bytes:
    """A whole HTTP/1.1 response that ends its connection. ``status`` is code and reason phrase."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return f"{head}\r\n".encode() + body


class SocketCounter:
    """Open HTTP sockets by network. A socket counts from its connect to its close or its WebSocket upgrade.

    Args:
        limit: Sockets that one network may hold; 0 switches the limit off.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: Counter[str] = Counter()

    def add(self, network: str) -> bool:
        """Count one more socket; False, and nothing counted, where the network holds ``limit`` of them."""
        if self.limit and self._open[network] >= self.limit:
            return False
        self._open[network] += 1
        return True

    def remove(self, network: str) -> None:
        """Undo one successful :meth:`add`."""
        self._open[network] -= 1
        if self._open[network] <= 0:
            del self._open[network]


class BodyTooLarge(Exception):
    """More of a request body arrived than its path accepts."""


class BodyLimit:
    """ASGI middleware: answers 413 as soon as the headers or the bytes received exceed the path's limit."""

    def __init__(self, application: Asgi) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """The ASGI application of one HTTP request."""
        headers = dict(scope["headers"])
        limit = max_body_bytes(scope["path"], headers.get(b"content-type", b""))
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            await _refuse(send)
            return
        received, started = 0, False

        async def counted_receive() -> dict[str, Any]:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise BodyTooLarge
            return message

        async def noted_send(message: dict[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._application(scope, counted_receive, noted_send)
        except BodyTooLarge:
            if not started:
                await _refuse(send)


async def _refuse(send: Send) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(TOO_LARGE)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": TOO_LARGE})

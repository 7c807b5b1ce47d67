"""uvicorn's side of :mod:`yapserver.http_limits`: one httptools protocol per socket.

uvicorn bounds neither the headers of a request nor the time that a request takes to arrive, and answers a request of
HTTP/1.0 in chunks, which that version does not know (RFC 9112, 6.1).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from accounts.addresses import network_of
from yapserver.http_limits import (
    BODY_DEADLINE_S,
    HEADER_DEADLINE_S,
    LINGER_BYTES,
    LINGER_S,
    MAX_HEADER_BYTES,
    TOO_LARGE,
    SocketCounter,
    max_body_bytes,
    raw_response,
)

_HEADERS_TOO_LARGE = b'{"detail":"The request headers are too large."}'


def limited_protocol(sockets: SocketCounter) -> type[HttpToolsProtocol]:
    """The class for ``uvicorn.Config(http=…)``.

    Args:
        sockets: Counts the open sockets of each network.
    """
    return type("LimitedProtocol", (_LimitedProtocol,), {"sockets": sockets})


class _UntilClose(RequestResponseCycle):
    """A response to HTTP/1.0: a body of unknown length ends with the connection."""

    _has_length = True

    async def send(self, message: Any) -> None:
        """Send one message (ASGI)."""
        if message["type"] == "http.response.start":
            self._has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if not self._has_length:
                self.chunked_encoding = False
        elif not self._has_length:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


class _LimitedProtocol(HttpToolsProtocol):
    """An HTTP/1.1 connection whose requests are bounded in size and in time."""

    sockets: SocketCounter

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._network: str | None = None  # None: this socket is not counted
        self._deadline: asyncio.TimerHandle | None = None
        self._refused = False
        self._thrown_away = 0
        self._header_bytes = 0
        self._in_headers = True
        self._body_received = 0
        self._body_limit = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        network = network_of(self.client[0] if self.client else "")
        if not self.sockets.add(network):
            self._refused = True
            transport.abort()
            return
        self._network = network
        self._expect_within(HEADER_DEADLINE_S)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._thrown_away += len(data)
            if self._thrown_away > LINGER_BYTES:
                self.transport.abort()
            return
        if self._in_headers:
            if self._deadline is None:  # the next request of a kept connection begins
                self._expect_within(HEADER_DEADLINE_S)
            # One read may hold more than headers; what is over the limit without their end is refused below.
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self._refuse("431 Request Header Fields Too Large", _HEADERS_TOO_LARGE)

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._body_received = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers, self._header_bytes = False, 0
        if self._refused:
            return
        content_type = next((value for name, value in self.headers if name == b"content-type"), b"")
        self._body_limit = max_body_bytes(self.url.decode("latin-1"), content_type)
        size = sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url)
        length = next((value for name, value in self.headers if name == b"content-length"), b"0")
        if size > MAX_HEADER_BYTES:
            self._refuse("431 Request Header Fields Too Large", _HEADERS_TOO_LARGE)
        elif int(length) > self._body_limit:
            self._refuse("413 Content Too Large", TOO_LARGE)
        else:
            self._expect_within(BODY_DEADLINE_S)
            super().on_headers_complete()
            if self.scope["http_version"] == "1.0" and self.cycle is not None:  # its task has not begun
                self.cycle.__class__ = _UntilClose

    def on_body(self, body: bytes) -> None:
        if self._refused:
            return
        self._body_received += len(body)
        if self._body_received > self._body_limit:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._refuse("413 Content Too Large", TOO_LARGE)
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused:
            return
        self._stop_clock()
        self._in_headers, self._header_bytes = True, 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        if self._refused:
            return
        self._stop_clock()
        self._uncount()
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._uncount()
        super().connection_lost(exc)

    def _refuse(self, status: str, body: bytes) -> None:
        """Answer, throw away what still arrives, and drop the connection after ``LINGER_S``."""
        self._refused = True
        self._stop_clock()
        self.flow.resume_reading()
        self.transport.write(raw_response(status, body))
        self._deadline = self.loop.call_later(LINGER_S, self.transport.abort)

    def _expect_within(self, seconds: float) -> None:
        self._stop_clock()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None

    def _uncount(self) -> None:
        if self._network is not None:
            self.sockets.remove(self._network)
            self._network = None

"""Bounded event streams under Daphne: Daphne buffers a response without limit for a client that does not read.

Twisted calls a streaming producer when its buffer is over 64 KiB. A connection that stays so for ``MAX_STALLED_S``, or
whose buffer would hold more than ``MAX_BUFFERED_BYTES``, is cut. Head and chunks are written at once where nothing
waits before them: Twisted takes a turn of the loop for each, and two system calls to ask for it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from yapserver.daphne_patches import DirectWriter, Message, Send, StalledProducer

_LAST_CHUNK = b"0\r\n\r\n"


def bounded_http(send: Send) -> Send:
    """Return a ``send`` whose buffer is bounded; the given one where the server is not Daphne.

    Args:
        send: ASGI's function of one HTTP request.
    """
    request: Any = send.args[0] if isinstance(send, partial) and send.args else None
    if request is None or not hasattr(request, "registerProducer"):
        return send
    return _BoundedSend(request, send)


class _BoundedSend:
    """The ``send`` of one request under Daphne."""

    def __init__(self, request: Any, send: Send) -> None:
        self._request = request
        self._send = send
        self._producer: StalledProducer | None = None
        self._writer: DirectWriter | None = None

    async def __call__(self, message: Message) -> None:
        """Send one message (ASGI)."""
        request = self._request
        if request.finished or request.channel is None:  # Twisted deletes the channel of a finished request
            return
        if message["type"] != "http.response.body":
            await self._send(message)
        elif message.get("more_body", False):
            await self._stream(message)
        else:
            await self._end(message)

    async def _stream(self, message: Message) -> None:
        """Send a part of a body, unless the client does not read: then the connection is cut."""
        request, body = self._request, message.get("body", b"")
        if self._producer is None or self._writer is None:
            transport = request.channel.transport
            self._producer, self._writer = StalledProducer(transport), DirectWriter(transport)
            request.registerProducer(self._producer, True)
        if not self._producer.takes(len(body)):
            return
        if request.startedWriting:
            self._write_chunk(body)
        else:
            await self._send(message)  # Twisted writes the head
            self._writer.flush()

    async def _end(self, message: Message) -> None:
        """Send the last part of a body."""
        request = self._request
        if self._producer is not None:  # before the end, Twisted wants the producer back
            self._producer.stopProducing()
            request.unregisterProducer()
            self._producer = None
        if self._writer is not None and request.chunked and not request._disconnected:
            self._write_chunk(message.get("body", b""), _LAST_CHUNK)
            request.chunked = 0  # the last chunk is written: Twisted only ends the request
            message = {**message, "body": b""}
        await self._send(message)

    def _write_chunk(self, body: bytes, behind: bytes = b"") -> None:
        """Write a chunk (RFC 9112, 7.1), if the body is not empty, and bytes behind the chunk."""
        request, writer = self._request, self._writer
        assert writer is not None
        if request._disconnected:
            return
        request.sentLength += len(body)
        if request.chunked and body:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        writer.write(body + behind)

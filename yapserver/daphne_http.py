"""Bounded event streams under Daphne: Daphne buffers a response without limit for a client that does not read.

Twisted calls a streaming producer when its buffer is over 64 KiB. A connection that stays so for ``MAX_STALLED_S``, or
whose buffer would hold more than ``MAX_BUFFERED_BYTES``, is cut. A chunk is written by two lines of RFC 9112 (7.1) and
at once where nothing waits before it: Twisted takes a turn of the loop for each.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from yapserver.daphne_patches import Message, Send, StalledProducer, send_at_once


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
        self._transport: Any = None

    async def __call__(self, message: Message) -> None:
        """Send one message (ASGI)."""
        request = self._request
        if request.channel is None or request.finished:
            return
        if message["type"] == "http.response.body":
            if message.get("more_body", False):
                if not self._stream(message.get("body", b"")):
                    return
                if self._sent_at_once(message.get("body", b"")):
                    return
            elif self._producer is not None:  # before the end, Twisted wants the producer back
                self._producer.stopProducing()
                request.unregisterProducer()
                self._producer = None
        await self._send(message)

    def _stream(self, body: bytes) -> bool:
        """Register for the state of the buffer. Returns False where the client does not read, and was cut off."""
        producer = self._producer
        if producer is None:
            self._transport = self._request.channel.transport
            producer = self._producer = StalledProducer(self._transport)
            self._request.registerProducer(producer, True)
        return producer.takes(len(body))

    def _sent_at_once(self, body: bytes) -> bool:
        """Write one chunk; False where Twisted has to write (the head is not out yet, or the client is gone)."""
        request = self._request
        if not (body and request.startedWriting and request.chunked) or request._disconnected:
            return False
        request.sentLength += len(body)
        send_at_once(self._transport, b"%x\r\n%b\r\n" % (len(body), body))
        return True

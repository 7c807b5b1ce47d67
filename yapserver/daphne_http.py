"""Bounded event streams under Daphne: Daphne buffers a response without limit for a client that does not read.

Twisted calls a streaming producer when its buffer is over 64 KiB. A connection that stays so for ``MAX_STALLED_S``, or
gets ``MAX_STALLED_BYTES`` more, is cut. A chunk is written by two lines of RFC 9112 (7.1) and at once where nothing
waits before it: Twisted takes a turn of the loop for each.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from yapserver.daphne_patches import MAX_STALLED_BYTES, Message, Send, StalledProducer, send_at_once


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
                self._stream(message.get("body", b""))
                if self._sent_at_once(message.get("body", b"")):
                    return
            elif self._producer is not None:  # before the end, Twisted wants the producer back
                self._producer.stopProducing()
                request.unregisterProducer()
                self._producer = None
        await self._send(message)

    def _stream(self, body: bytes) -> None:
        """Register for the state of the buffer, and cut the client off that does not read."""
        producer = self._producer
        if producer is None:
            self._transport = self._request.channel.transport
            producer = self._producer = StalledProducer(self._transport)
            self._request.registerProducer(producer, True)
        if producer.stalled:
            producer.piled_up += len(body)
            if producer.piled_up > MAX_STALLED_BYTES:
                producer.cut_off()

    def _sent_at_once(self, body: bytes) -> bool:
        """Write one chunk; False where Twisted has to write (the head is not out yet, or the client is gone)."""
        request = self._request
        if not (body and request.startedWriting and request.chunked) or request._disconnected:
            return False
        request.sentLength += len(body)
        send_at_once(self._transport, b"%x\r\n%b\r\n" % (len(body), body))
        return True

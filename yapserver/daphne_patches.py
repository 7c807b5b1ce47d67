"""Patches of Daphne's WebSocket connections, made from inside the application, however Daphne was started.

Daphne hands the application a ``send`` that knows the connection's Twisted protocol. What is patched, and why:

- Output is bounded: Daphne buffers without limit for a client that does not read. Twisted calls a streaming producer
  when its buffer is over 64 KiB; a connection that stays so for ``MAX_STALLED_S``, or whose buffer would hold more than
  ``MAX_BUFFERED_BYTES``, is cut.
- Input is bounded: Daphne puts every message into a queue without limit. Reading from the socket stops while
  ``MAX_WAITING`` messages or ``MAX_WAITING_BYTES`` wait for the application.
- Close codes 1008, 1012 and 1013 are sent: Autobahn's ``sendClose`` refuses all below 3000 but 1000.
- A message over the protocol's limit reaches the application, which answers it: Autobahn drops the connection.
- A handshake may be refused with any HTTP status: Daphne knows 403 alone (:mod:`yapserver.daphne_handshake`).
- A text frame is written by two lines of RFC 6455 and at once where nothing waits before it: Autobahn takes two hundred
  lines, and Twisted two system calls and a turn of the loop, for each of a reply's hundreds of frames. Several messages
  (``texts``, the extension of ``inference.openai.responses_socket``) are one write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from yapserver.daphne_handshake import EXTENSION, HandshakeRefusal

logger = logging.getLogger(__name__)

MAX_BUFFERED_BYTES = 1024 * 1024
MAX_STALLED_S = 10.0
MAX_INBOUND_BYTES = 4 * 1024 * 1024
"""Largest message that reaches the application; above the protocol's own limit, so that one too large is answered."""
MAX_WAITING = 32
MAX_WAITING_BYTES = 1024 * 1024

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]


class StalledProducer:
    """Twisted's IPushProducer: called when the transport's buffer is full, and when it has drained."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._timer: Any = None
        self.stalled = False
        self._since_stall = 0  # bytes; counts where the transport does not tell its own

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        from twisted.internet import reactor

        if not self.stalled:  # every write over the limit calls this again
            self.stalled, self._since_stall = True, 0
        if self._timer is None:
            self._timer = reactor.callLater(MAX_STALLED_S, self.cut_off)

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        self.stalled = False
        self._stop_timer()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        self._stop_timer()

    def takes(self, size: int) -> bool:
        """Whether the buffer may take this many bytes more; if not, the connection is cut."""
        if not self.stalled:
            return True
        self._since_stall += size
        waiting = waiting_bytes(self._transport)
        if (self._since_stall if waiting is None else waiting + size) <= MAX_BUFFERED_BYTES:
            return True
        self.cut_off()
        return False

    def cut_off(self) -> None:
        """Drop the connection and what is buffered for it."""
        self._stop_timer()
        logger.info("connection cut: the client does not read")
        self._transport.abortConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class _Inbound:
    """Stops reading from a socket while too many messages wait for the application."""

    def __init__(self, queue: asyncio.Queue[Message], transport: Any) -> None:
        self._queue = queue
        self._transport = transport
        self._put = queue.put_nowait
        self._waiting_bytes = 0
        self._paused = False
        queue.put_nowait = self.put  # type: ignore[method-assign]

    def put(self, item: Message) -> None:
        """Queue a message; called by Daphne instead of the queue's own method."""
        self._waiting_bytes += _size(item)
        self._put(item)
        if not self._paused and (self._queue.qsize() >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES):
            self._paused = True
            self._transport.pauseProducing()

    async def receive(self) -> Message:
        """Return the next message (ASGI)."""
        message = await self._queue.get()
        self._waiting_bytes -= _size(message)
        if self._paused and self._queue.qsize() <= MAX_WAITING // 2 and self._waiting_bytes <= MAX_WAITING_BYTES // 2:
            self.resume()
        return message

    def resume(self) -> None:
        """Read on. A connection that is being closed has to read the client's close frame."""
        if self._paused:
            self._paused = False
            self._transport.resumeProducing()


def _size(message: Message) -> int:
    return len(message.get("text") or message.get("bytes") or "")


def text_frame(text: str) -> bytes:
    """Return one whole unmasked text frame (RFC 6455, 5.2)."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    length = b"\x7e" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x7f" + size.to_bytes(8, "big")
    return b"\x81" + length + payload


def waiting_bytes(transport: Any) -> int | None:
    """Return the bytes that Twisted buffers for a connection; None where the transport does not say (TLS)."""
    if not hasattr(transport, "dataBuffer"):
        return None
    return len(transport.dataBuffer) - int(transport.offset) + int(transport._tempDataLen)


class DirectWriter:
    """Writes to the socket of a connection now what the socket takes now; the rest goes through ``transport.write``.

    Args:
        transport: Twisted's transport. TLS wraps the socket, and takes every write itself.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._direct = hasattr(transport, "dataBuffer") and hasattr(transport, "socket")

    def write(self, data: bytes) -> None:
        """Write, behind the bytes that wait."""
        transport, sent = self._transport, 0
        if self._direct and transport.connected and not (transport.dataBuffer or transport._tempDataLen):
            try:
                sent = transport.socket.send(data)
            except OSError:  # the socket is full, or broken: the reactor will see that as well
                sent = 0
        if sent < len(data):
            transport.write(data[sent:])

    def flush(self) -> None:
        """Write what waits as far as the socket takes it now."""
        transport = self._transport
        # Twisted ends a connection that is to be lost after the write, where the reactor makes that write.
        if self._direct and transport.connected and not transport.disconnecting:
            transport.doWrite()


def patched(receive: Receive, send: Send) -> tuple[Receive, Send, Callable[[], None]]:
    """Patch one WebSocket connection.

    Args:
        receive: As the ASGI server gave it.
        send: As the ASGI server gave it.

    Returns:
        ``receive`` and ``send`` for the application, and a function to call when the application has ended. The given
        ones, and a function that does nothing, where the server is not Daphne.
    """
    protocol: Any = send.args[0] if isinstance(send, partial) and send.args else None
    transport: Any = getattr(protocol, "transport", None)
    if protocol is None or not hasattr(transport, "registerProducer") or not hasattr(protocol, "maxMessagePayloadSize"):
        return receive, send, _nothing
    protocol.maxMessagePayloadSize = protocol.maxFramePayloadSize = MAX_INBOUND_BYTES
    protocol.failByDrop = False  # Autobahn drops the connection by default; a close frame tells the client 1009 or 1007
    queue = getattr(receive, "__self__", None)
    inbound = _Inbound(queue, transport) if isinstance(queue, asyncio.Queue) else None
    patched_send = _patched_send(protocol, transport, send)
    return (inbound.receive, patched_send, inbound.resume) if inbound else (receive, patched_send, _nothing)


def _nothing() -> None:
    """Nothing has to be done."""


def _patched_send(protocol: Any, transport: Any, send: Send) -> Send:
    transport.unregisterProducer()  # the HTTP channel's, which ended with the upgrade
    producer = StalledProducer(transport)
    transport.registerProducer(producer, True)
    writer = DirectWriter(transport)
    refusal = HandshakeRefusal(protocol)

    async def send_now(message: Message) -> None:
        text, texts = message.get("text"), message.get("texts")
        frames = b"".join(map(text_frame, texts)) if texts else None if text is None else text_frame(text)
        if frames is not None:
            if producer.takes(len(frames)) and protocol.state == protocol.STATE_OPEN:
                writer.write(frames)
            return
        if message["type"] == "websocket.close" and protocol.state == protocol.STATE_OPEN:
            protocol.sendCloseFrame(code=message.get("code", 1000), isReply=False)
            return
        if message["type"].startswith(EXTENSION):
            refusal.send(message)
            return
        await send(message)

    return send_now

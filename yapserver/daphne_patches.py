"""What Daphne's WebSockets lack, added from inside the application, whichever way Daphne was started.

Daphne hands the application a ``send`` that knows the connection's Twisted protocol. By it:
a client that does not read is bounded (Daphne would buffer for it for ever: its transport tells a streaming producer
when the buffer is over 64 KiB, and a client that leaves it so for too long, or lets too much pile up, is cut off);
close codes 1008, 1012 and 1013 can be sent (Autobahn's ``sendClose`` refuses all below 3000 but 1000);
a message over the protocol's limit is answered, not cut off;
a text frame, of which a reply has hundreds, is written by its two lines of RFC 6455 and not by Autobahn's two hundred,
and sent at once where nothing waits before it (Twisted would first ask the reactor whether the socket takes it: two
system calls and a turn of the loop for every frame).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

logger = logging.getLogger(__name__)

MAX_STALLED_BYTES = 1024 * 1024
MAX_STALLED_S = 10.0
# Above the protocol's own limit, so that a message that is too large is answered and not cut off; bounded all the same.
MAX_INBOUND_BYTES = 4 * 1024 * 1024

Send = Callable[[dict[str, Any]], Awaitable[None]]


class _Producer:
    """Twisted's IPushProducer: told when the transport's buffer is full, and when it has drained."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._timer: Any = None
        self.stalled = False
        self.piled_up = 0

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        from twisted.internet import reactor

        if not self.stalled:  # every write over the limit calls this again
            self.stalled, self.piled_up = True, 0
        if self._timer is None:
            self._timer = reactor.callLater(MAX_STALLED_S, self.cut_off)

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        self.stalled = False
        self._stop_timer()

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        self._stop_timer()

    def cut_off(self) -> None:
        """Drop the connection and what is buffered for it."""
        self._stop_timer()
        logger.info("a client that does not read was cut off")
        self._transport.abortConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def text_frame(text: str) -> bytes:
    """One whole unmasked text frame (RFC 6455, 5.2)."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    length = b"\x7e" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x7f" + size.to_bytes(8, "big")
    return b"\x81" + length + payload


def send_at_once(transport: Any, frame: bytes) -> None:
    """As ``transport.write``, but what the socket takes now leaves now."""
    sent = 0
    # TLS wraps the transport and has no such method.
    direct = hasattr(transport, "writeSomeData") and transport.connected
    if direct and not (transport.dataBuffer or transport._tempDataLen):  # what is buffered goes first
        taken = transport.writeSomeData(frame)
        sent = taken if isinstance(taken, int) else 0  # an error: the reactor will meet it, too
    if sent < len(frame):
        transport.write(frame[sent:])


def wrap_daphne_send(send: Send) -> Send:
    """``send`` for a WebSocket: wrap_daphne_send where the server is Daphne, itself where it is another."""
    protocol: Any = send.args[0] if isinstance(send, partial) and send.args else None
    transport: Any = getattr(protocol, "transport", None)
    if protocol is None or not hasattr(transport, "registerProducer") or not hasattr(protocol, "maxMessagePayloadSize"):
        return send
    protocol.maxMessagePayloadSize = protocol.maxFramePayloadSize = MAX_INBOUND_BYTES
    transport.unregisterProducer()  # the HTTP channel's, which ended with the upgrade
    producer = _Producer(transport)
    transport.registerProducer(producer, True)

    async def send_completed(message: dict[str, Any]) -> None:
        text = message.get("text")
        if producer.stalled:
            producer.piled_up += len(text or "")
            if producer.piled_up > MAX_STALLED_BYTES:
                producer.cut_off()
                return
        if text is not None:
            if protocol.state == protocol.STATE_OPEN:
                send_at_once(transport, text_frame(text))
            return
        if message["type"] == "websocket.close" and protocol.state == protocol.STATE_OPEN:
            protocol.sendCloseFrame(code=message.get("code", 1000), isReply=False)
            return
        await send(message)

    return send_completed

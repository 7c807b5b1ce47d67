"""Refuses a WebSocket handshake under Daphne with any HTTP status: ASGI's extension ``websocket.http.response``.

Daphne answers 403 to every refused handshake. Clients of OpenAI's protocols read the status: 401 is a wrong key and
final, 429 and 503 are tried again later, and 403 counts as final too.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

EXTENSION = "websocket.http.response"

Message = dict[str, Any]


class HandshakeRefusal:
    """Collects an HTTP response and writes it in the handshake's place.

    Args:
        protocol: Daphne's protocol of the connection.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._start: Message = {}
        self._body = b""

    def send(self, message: Message) -> None:
        """Take ``websocket.http.response.start`` or ``.body``; the last body is written and ends the connection."""
        if message["type"] == f"{EXTENSION}.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        protocol = self._protocol
        if protocol.state != protocol.STATE_CONNECTING:
            return
        protocol.sendData(self._response())
        # Daphne rejects what is still connecting after a while; this handshake is over.
        del protocol.handshake_deferred
        protocol.server.protocol_disconnected(protocol)
        protocol.wasClean = True  # Autobahn logs a warning otherwise
        protocol.dropConnection(abort=False)

    def _response(self) -> bytes:
        status = HTTPStatus(self._start["status"])
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
        lines += [name + b": " + value for name, value in self._start.get("headers", ())]
        lines += [b"content-length: %d" % len(self._body), b"connection: close", b"", self._body]
        return b"\r\n".join(lines)

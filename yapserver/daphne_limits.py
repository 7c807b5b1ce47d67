"""Daphne's side of :mod:`yapserver.http_limits`: one Twisted HTTP channel per socket.

Daphne writes a body of any size to disk before the application sees the request, and Twisted restarts its timeout with
every byte. Both are decided in the channel, so the limits have to be there.
"""

from __future__ import annotations

from typing import Any

from daphne import http_protocol
from twisted.web import http

from accounts.addresses import network_of
from yapserver.http_limits import (
    BODY_DEADLINE_S,
    HEADER_DEADLINE_S,
    LINGER_BYTES,
    LINGER_S,
    TOO_LARGE,
    SocketCounter,
    max_body_bytes,
    raw_response,
)


def install(sockets: SocketCounter) -> None:
    """Give every HTTP connection that Daphne accepts from now on a limited channel.

    Args:
        sockets: Counts the open sockets of each network.
    """

    def channel(_factory: Any) -> Any:
        return http._GenericHTTPChannelProtocol(LimitedChannel(sockets))

    http_protocol.HTTPFactory.protocol = channel


class LimitedChannel(http.HTTPChannel):  # type: ignore[misc, unused-ignore]
    """An HTTP/1.1 connection whose requests are bounded in size and in time."""

    def __init__(self, sockets: SocketCounter) -> None:
        super().__init__()
        self._sockets = sockets
        self._network: str | None = None  # None: this socket is not counted
        self._deadline: Any = None  # Twisted's IDelayedCall while a request arrives
        self._refused = False
        self._thrown_away = 0
        self._body_received = 0
        self._body_limit = 0

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        super().connectionMade()
        network = network_of(str(getattr(self.transport.getPeer(), "host", "")))
        if not self._sockets.add(network):
            self._refused = True
            self.transport.abortConnection()
            return
        self._network = network
        self._expect_within(HEADER_DEADLINE_S)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        if self._refused:
            self._thrown_away += len(data)
            if self._thrown_away > LINGER_BYTES:
                self.transport.abortConnection()
            return
        if self._deadline is None and not self._handlingRequest:  # the next request of a kept connection begins
            self._expect_within(HEADER_DEADLINE_S)
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:  # noqa: N802 - Twisted's name
        content_type = self.requests[-1].requestHeaders.getRawHeaders(b"content-type", [b""])[0]
        self._body_received, self._body_limit = 0, max_body_bytes(self._path.decode("latin-1"), content_type)
        if self.length is not None and self.length > self._body_limit:
            self._refuse()
            return
        self._expect_within(BODY_DEADLINE_S)
        super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        if self._refused:
            return
        if not self._handlingRequest and self.length is None:  # a chunked body: no length was announced
            self._body_received += len(data)
            if self._body_received > self._body_limit:
                self._refuse()
                return
        super().rawDataReceived(data)

    def allContentReceived(self) -> None:  # noqa: N802 - Twisted's name
        if self._refused:
            return
        self._stop_clock()
        request = self.requests[-1]
        # The application reads the body itself. Twisted would parse forms for nothing, the type's header alone for a
        # third of the time that a request takes up to the application, and answer a broken form in its place.
        request._parsePOSTFormSubmission = False
        super().allContentReceived()
        if getattr(request, "transport", self.transport) is None:  # Daphne moved the transport to a WebSocket
            self._uncount()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802 - Twisted's name
        self._stop_clock()
        self._uncount()
        super().connectionLost(reason)

    def _refuse(self) -> None:
        """Answer 413, throw away what still arrives, and drop the connection after ``LINGER_S``."""
        self._refused = True
        self._stop_clock()
        self.transport.write(raw_response("413 Content Too Large", TOO_LARGE))
        self._deadline = self.callLater(LINGER_S, self.transport.abortConnection)

    def _expect_within(self, seconds: float) -> None:
        self._stop_clock()
        self._deadline = self.callLater(seconds, self.transport.abortConnection)

    def _stop_clock(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _uncount(self) -> None:
        if self._network is not None:
            self._sockets.remove(self._network)
            self._network = None

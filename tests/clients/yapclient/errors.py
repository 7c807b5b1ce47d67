"""Errors, one class per kind. `str(error)` is one sentence for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RETRYABLE = frozenset({"server_at_capacity", "server_not_ready", "server_draining"})

# Error code for a close code without an error frame.
CODE_OF_CLOSE = {1008: "authentication_failed", 1012: "server_draining", 1013: "server_at_capacity"}


class YapError(Exception):
    """Base class of this library's errors. `code` is the error code of the wire, or the library's own."""

    code: str = "failed"


class BadAddress(YapError):
    """The text is not the address of a server."""

    code = "bad_address"

    def __init__(self, text: str, why: str) -> None:
        super().__init__(f"{text!r} is not a server address: {why}")


class Unreadable(YapError):
    """A file is missing or has the wrong content."""

    code = "unreadable_file"


class NoServer(YapError):
    """No server speaks the protocol at the address: no listener, no such host, or another service."""

    code = "no_server"

    def __init__(self, server: str, why: str) -> None:
        super().__init__(f"no Yap server at {server}: {why}")
        self.server = server
        self.why = why


class ConnectionRefused(YapError):
    """The server answered and refused the connection. `retry_in` is in seconds."""

    def __init__(
        self,
        server: str,
        code: str,
        message: str = "",
        *,
        retry_in: float | None = None,
        close_code: int | None = None,
        capacity: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{server} refused the connection: {code}" + (f" ({message})" if message else ""))
        self.server = server
        self.code = code
        self.message = message
        self.retry_in = retry_in
        self.close_code = close_code
        self.capacity = dict(capacity or {})

    @property
    def retryable(self) -> bool:
        """Whether the same request can succeed later."""
        return self.code in RETRYABLE


class ConnectionLost(YapError):
    """An open connection ended. `close_code` is None if it ended without a close frame.

    `reconnect_in` holds the seconds that a stopping server asked for; None if it named none.
    """

    def __init__(
        self,
        server: str,
        close_code: int | None,
        reason: str = "",
        code: str | None = None,
        reconnect_in: float | None = None,
    ) -> None:
        detail = ", ".join(part for part in (code, reason) if part)
        how = "broke off" if close_code in (None, 1006) else f"was closed with {close_code}"
        super().__init__(f"the connection to {server} {how}" + (f" ({detail})" if detail else ""))
        self.server = server
        self.close_code = close_code
        self.reason = reason
        self.code = code or "connection_lost"
        self.reconnect_in = reconnect_in


class RequestRefused(YapError):
    """The server refused a message; the connection stays open. `retry_in` is in seconds."""

    def __init__(self, code: str, message: str = "", retry_in: float | None = None) -> None:
        super().__init__(code + (f": {message}" if message else ""))
        self.code = code
        self.message = message
        self.retry_in = retry_in


class TurnFailed(RequestRefused):
    """A turn started and ended in an error."""


class ReplyTimeout(YapError):
    """The connection is open, but the server sent no frame within the timeout."""

    code = "reply_timeout"

    def __init__(self, server: str, seconds: float) -> None:
        super().__init__(f"{server} sent nothing for {seconds:g} s")
        self.server = server
        self.seconds = seconds

"""The rate windows of one session, and the wire's errors where a window is full."""

from __future__ import annotations

import math
import time

from accounts.callers import Limits, Window
from accounts.limits import RollingWindow
from inference.protocol.errors import ErrorCode, ProtocolError

# `ping` and `pong` have a window of their own: a client may keep time with them, but not fill the loop.
PINGS = Window(2_000, 10.0)
# Refused messages take no slot of the message window. Their cost is counted: one unit each, and one for each 64 KiB.
REFUSALS = Window(100, 60.0)
_BYTES_PER_UNIT = 64 * 1024


class TooManyMessages(Exception):
    """The connection has to be closed: what it sends costs more than an answer."""


class SessionLimits:
    """Rolling windows for messages, cancels and persona updates. A refused message takes no slot."""

    def __init__(self, limits: Limits) -> None:
        self._messages = RollingWindow(limits.messages)
        self._cancels = RollingWindow(limits.cancels)
        self._updates = RollingWindow(limits.persona_updates)
        self._pings = RollingWindow(PINGS)
        self._refusals = RollingWindow(REFUSALS)

    def change(self, limits: Limits) -> None:
        """Apply changed limits from the next message on."""
        self._messages.window = limits.messages
        self._cancels.window = limits.cancels
        self._updates.window = limits.persona_updates

    def charge(self, kind: str, request_id: str | None) -> None:
        """Charge one message of type ``kind``; ``end`` is free.

        Raises:
            ProtocolError: ``message_rate_limited`` or ``cancel_rate_limited``, with ``retry_in`` seconds.
            TooManyMessages: too many ``ping`` and ``pong`` messages.
        """
        if kind == "end":
            return
        if kind in ("ping", "pong"):
            if self._pings.take(time.monotonic()) > 0:
                raise TooManyMessages
            return
        window, code = (
            (self._cancels, ErrorCode.CANCEL_RATE_LIMITED)
            if kind == "cancel"
            else (self._messages, ErrorCode.MESSAGE_RATE_LIMITED)
        )
        wait_s = window.take(time.monotonic())
        if wait_s > 0:
            raise ProtocolError(
                code, "too many messages, slow down", kind=kind, request_id=request_id, retry_in=whole_seconds(wait_s)
            )

    def charge_refusal(self, characters: int) -> None:
        """Charge one refused message of this length.

        Raises:
            TooManyMessages: the client goes on sending messages that are refused.
        """
        now = time.monotonic()
        for _ in range(1 + characters // _BYTES_PER_UNIT):
            if self._refusals.take(now) > 0:
                raise TooManyMessages

    def charge_persona_update(self) -> None:
        """Charge a persona update. A refused update gives its slot of the message window back.

        Raises:
            ProtocolError: ``chat_prompt_update_rate_limited``, with ``retry_in`` seconds.
        """
        wait_s = self._updates.take(time.monotonic())
        if wait_s > 0:
            self._messages.give_back()
            raise ProtocolError(
                ErrorCode.CHAT_PROMPT_UPDATE_RATE_LIMITED, "too many persona updates", retry_in=whole_seconds(wait_s)
            )


def whole_seconds(wait_s: float) -> int:
    """Return the whole seconds of a wait, at least 1, for ``retry_in``.

    Args:
        wait_s: the wait, in seconds.
    """
    return max(1, math.ceil(wait_s))

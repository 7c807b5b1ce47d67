"""The keys of requests: a short cache in front of the key check, and rolling windows per key.

A connection has no life on this surface, so the windows of a key hold for all its requests to this process.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from accounts.callers import Caller, Window
from accounts.limits import RollingWindow
from inference.admission import Admission
from inference.protocol.errors import ErrorCode, ProtocolError
from inference.serving_context import ServingContext
from inference.session_limits import whole_seconds

# Refused requests take no slot of the message window. Their cost is counted: one unit each, and one for each 64 KiB.
REFUSED = Window(100, 60.0)
REFUSED_BYTES_PER_UNIT = 64 * 1024
# Token counting has no turn that limits it. A unit is a text of up to 4,000 characters, about 2 ms of a processor.
ENCODINGS = Window(2_000, 60.0)
CACHE_S = 1.0
MAX_CACHED = 10_000


class CallerCache:
    """Remembers the caller of a key for :data:`CACHE_S`: a key check costs a thread hop and a query.

    Args:
        context: the process's budgets.
        admission: checks keys.
        clock: monotonic seconds.
    """

    def __init__(
        self, context: ServingContext, admission: Admission, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._context = context
        self._admission = admission
        self._clock = clock
        self._known: OrderedDict[str, tuple[Caller, float]] = OrderedDict()

    async def find(self, key: str | None, address: str) -> Caller:
        """Return the caller of a key.

        Args:
            key: as the client sent it; None where there is none.
            address: the client's address, for the counting of wrong keys.

        Raises:
            ProtocolError: ``authentication_failed``, or ``server_not_ready`` where the key cannot be checked in time.
        """
        now = self._clock()
        known = self._known.get(key) if key else None
        if known is not None and known[1] > now and not _expired(known[0]):
            return known[0]
        caller = await self._admission.authenticate(self._context, key, address)
        assert key is not None
        self._known[key] = caller, now + CACHE_S
        self._known.move_to_end(key)
        self._forget(now)
        return caller

    def _forget(self, now: float) -> None:
        """Drop the keys at the front that are no longer valid: the entries stand in the order of their check."""
        while self._known:
            key, (_, until) = next(iter(self._known.items()))
            if until > now and len(self._known) <= MAX_CACHED:
                return
            del self._known[key]


def _expired(caller: Caller) -> bool:
    return caller.expires_at is not None and caller.expires_at <= time.time()


class KeyWindows:
    """One rolling window for each key.

    Args:
        window: of every key; None: the key's own message window.
        clock: monotonic seconds.
    """

    def __init__(self, window: Window | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._clock = clock
        self._windows: OrderedDict[str, RollingWindow] = OrderedDict()

    def charge(self, caller: Caller, units: int = 1) -> None:
        """Charge one request.

        Args:
            caller: the key.
            units: what the request costs. The last request of a window may cost more than is left.

        Raises:
            ProtocolError: ``message_rate_limited``, with ``retry_in`` seconds.
        """
        window, now = self._of(caller), self._clock()
        wait_s = window.take(now)
        if wait_s > 0:
            raise ProtocolError(
                ErrorCode.MESSAGE_RATE_LIMITED,
                "too many requests with this key, slow down",
                retry_in=whole_seconds(wait_s),
            )
        for _ in range(units - 1):
            window.take(now)

    def check(self, caller: Caller) -> None:
        """Check that a request could be charged, and charge nothing.

        Raises:
            ProtocolError: ``message_rate_limited``, with ``retry_in`` seconds.
        """
        if caller.prefix in self._windows:
            self.charge(caller)
            self._of(caller).give_back()

    def _of(self, caller: Caller) -> RollingWindow:
        limits = self._window or caller.limits.messages
        window = self._windows.get(caller.prefix)
        if window is None:
            window = self._windows[caller.prefix] = RollingWindow(limits)
            if len(self._windows) > MAX_CACHED:
                self._windows.popitem(last=False)
        window.window = limits
        self._windows.move_to_end(caller.prefix)
        return window

"""Slows down guesses of ``TEXT_API_KEY``: wrong keys are counted by the client's network, in this process.

Only keys that are not of the server's own format count. A ``yap_…`` key has 256 random bits and needs no protection
from guessing, so clients with such a key are admitted whatever else comes from their network.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock

WRONG_KEYS = 10
WINDOW_S = 60.0
MAX_NETWORKS = 10_000  # remembered at once; the one that failed longest ago is forgotten first


class TooManyWrongKeys(Exception):
    """A network used up its attempts. ``retry_in`` is the time until the next one, in whole seconds."""

    def __init__(self, retry_in: int) -> None:
        super().__init__(f"too many wrong API keys from this address, try again in {retry_in} s")
        self.retry_in = retry_in


class WrongKeyCounter:
    """At most ``limit`` wrong keys of one network in any ``window_s`` seconds. Any thread may call.

    Args:
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self, limit: int = WRONG_KEYS, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._window_s = window_s
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = Lock()

    def check(self, network: str) -> None:
        """Raises :class:`TooManyWrongKeys` where the next key of this network must not be looked at yet."""
        with self._lock:
            failures = self._failures.get(network)
            if failures is None:
                return
            wait = failures[0] + self._window_s - self._clock()
            if len(failures) >= self._limit and wait > 0:
                raise TooManyWrongKeys(int(wait) + 1)

    def failed(self, network: str) -> None:
        """Count one wrong key."""
        with self._lock:
            self._failures.setdefault(network, deque(maxlen=self._limit)).append(self._clock())
            self._failures.move_to_end(network)
            if len(self._failures) > MAX_NETWORKS:
                self._failures.popitem(last=False)

    def clear(self) -> None:
        """Forget every failure (for tests)."""
        with self._lock:
            self._failures.clear()


wrong_keys = WrongKeyCounter()
"""The counter of this process, shared by the WebSocket and by HTTP."""

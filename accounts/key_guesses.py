"""Slows down guesses of ``TEXT_API_KEY``: wrong keys are counted by the client's network.

Only keys that are neither of the server's own format nor "Try it" tickets count. A ``yap_…`` key has 256 random bits
and a ticket is signed, so clients with one are admitted whatever else comes from their network.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock
from typing import Protocol

from accounts.keys import TICKET_START, prefix_of

WRONG_KEYS = 10
WINDOW_S = 60.0
MAX_NETWORKS = 10_000  # remembered at once; the one that failed longest ago is forgotten first


class TooManyWrongKeys(Exception):
    """A network used up its attempts. ``retry_in`` is the time until the next one, in whole seconds."""

    def __init__(self, retry_in: int) -> None:
        super().__init__(f"too many wrong API keys from this address, try again in {retry_in} s")
        self.retry_in = retry_in


def is_guess(key: str) -> bool:
    """Whether a key could be a guess of ``TEXT_API_KEY``."""
    return prefix_of(key) is None and not key.startswith(TICKET_START)


class SharedCounter(Protocol):
    """The counter of all processes."""

    def guessed(self, network: str, *, right: bool) -> None:
        """Count one guess as :meth:`WrongKeyCounter.guessed` does. Blocks for less than half a second."""
        ...


class WrongKeyCounter:
    """At most ``limit`` wrong keys of one network in any ``window_s`` seconds. Any thread may call.

    Args:
        clock: A monotonic clock in seconds.

    Attributes:
        shared: The counter of all processes, which counts as well; None: this process counts alone.
    """

    def __init__(
        self, limit: int = WRONG_KEYS, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.shared: SharedCounter | None = None
        self._limit = limit
        self._window_s = window_s
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = Lock()

    def guessed(self, network: str, *, right: bool) -> None:
        """Count one guess, here and in :attr:`shared`. For threads: the shared counter may block.

        Raises:
            TooManyWrongKeys: The network has used up its attempts, whatever the key is.
        """
        self.guessed_here(network, right=right)
        if self.shared is not None:
            self.shared.guessed(network, right=right)

    def guessed_here(self, network: str, *, right: bool) -> None:
        """Count one guess, in one step with the check: guesses at the same time overshoot no limit.

        Args:
            network: The network that the guess came from.
            right: Whether the guess is the key. A right guess is not counted; with no attempts left it is refused too.

        Raises:
            TooManyWrongKeys: The network has used up its attempts, whatever the key is.
        """
        with self._lock:
            now = self._clock()
            failures = self._failures.get(network)
            if failures is not None and len(failures) >= self._limit:
                wait = failures[0] + self._window_s - now
                if wait > 0:
                    raise TooManyWrongKeys(int(wait) + 1)
            if not right:
                self._failures.setdefault(network, deque(maxlen=self._limit)).append(now)
                self._failures.move_to_end(network)
                if len(self._failures) > MAX_NETWORKS:
                    self._failures.popitem(last=False)

    def clear(self) -> None:
        """Forget every failure of this process (for tests)."""
        with self._lock:
            self._failures.clear()


wrong_keys = WrongKeyCounter()
"""The counter of this process, shared by the WebSocket and by HTTP."""

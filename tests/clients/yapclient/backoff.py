"""Waiting times between connection attempts."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff.

    `attempts` is the number of connection attempts (None: no limit). Waits double from `first` to `longest` seconds.
    `without_server` also retries if no server answers, for example during a restart.
    """

    attempts: int | None = 4
    first: float = 0.5
    longest: float = 15.0
    without_server: bool = False

    def wait(self, failures: int, retry_in: float | None = None) -> float:
        """Choose a wait with random jitter, so that many clients do not reconnect at once.

        Args:
            failures: consecutive failed attempts, at least 1.
            retry_in: seconds that the server asked for; None: use the backoff.

        Returns:
            Seconds.
        """
        if retry_in is not None:
            return retry_in * random.uniform(1.0, 1.1)
        waits = float(min(self.longest, self.first * 2 ** min(failures - 1, 30)))
        return waits * random.uniform(0.5, 1.0)

    def exhausted(self, failures: int) -> bool:
        """Return whether no attempt is left after this number of failures."""
        return self.attempts is not None and failures >= self.attempts


ONCE = Backoff(attempts=1)

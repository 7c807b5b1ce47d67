"""How long to wait before knocking again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """``attempts`` connections in all (None: for ever); waits double from ``first`` to ``longest`` seconds.

    ``without_server``: also when nothing answers at all, as while a server restarts.
    """

    attempts: int | None = 4
    first: float = 0.5
    longest: float = 15.0
    without_server: bool = False

    def wait(self, failures: int, retry_in: float | None = None) -> float:
        """Seconds to wait after the ``failures``-th failure in a row, with jitter, so that a crowd does not come back
        at once. Where the server says when to come back, that is when."""
        if retry_in is not None:
            return retry_in * random.uniform(1.0, 1.1)
        waits = float(min(self.longest, self.first * 2 ** min(failures - 1, 30)))
        return waits * random.uniform(0.5, 1.0)

    def exhausted(self, failures: int) -> bool:
        """Whether it is time to give up."""
        return self.attempts is not None and failures >= self.attempts


ONCE = Backoff(attempts=1)

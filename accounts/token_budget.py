"""Tokens per key and UTC day. Everything is counted, also for keys without a budget: one may be set at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from accounts.callers import Caller

DAY_S = 86_400
Clock = Callable[[], float]
Seed = Callable[[str, float], Awaitable[int]]
"""``(key prefix, now)`` → tokens written since midnight UTC: ``accounts.selectors.tokens_today``."""


def until_midnight(now: float) -> int:
    """Whole seconds until the next UTC day, at least 1."""
    return max(1, math.ceil(DAY_S - now % DAY_S))


class TokenBudget(Protocol):
    """What is left of a key's day. A turn that runs over midnight is charged to the day it ends in."""

    async def open(self, caller: Caller) -> None:
        """Once per connection, before the others: reads what the key has used today. The only part that may query."""
        ...

    async def remaining(self, caller: Caller) -> int | None:
        """Tokens left today, negative when the last turn went over; None: no budget."""
        ...

    def charge(self, caller: Caller, tokens: int) -> None:
        """Counts ``tokens`` (all that a turn processed: prompts and output of both engines). Never waits."""
        ...

    def retry_in(self) -> int:
        """Seconds until budgets are whole again."""
        ...

    async def close(self) -> None:
        """Writes out what is not yet shared."""
        ...


class MemoryTokenBudget:
    """Budgets of one process."""

    def __init__(self, seed: Seed, clock: Clock = time.time) -> None:
        self._seed = seed
        self._clock = clock
        self._day = 0
        self._used: dict[str, int] = {}

    async def open(self, caller: Caller) -> None:
        """See :class:`TokenBudget`."""
        while caller.prefix not in (today := self._today()):
            used = await self._seed(caller.prefix, self._clock())
            if today is self._today():  # else midnight passed meanwhile
                today.setdefault(caller.prefix, used)

    async def remaining(self, caller: Caller) -> int | None:
        """See :class:`TokenBudget`."""
        limit = caller.limits.tokens_per_day
        return None if limit is None else limit - self._today().get(caller.prefix, 0)

    def charge(self, caller: Caller, tokens: int) -> None:
        """See :class:`TokenBudget`."""
        used = self._today()
        used[caller.prefix] = used.get(caller.prefix, 0) + tokens

    def retry_in(self) -> int:
        """See :class:`TokenBudget`."""
        return until_midnight(self._clock())

    async def close(self) -> None:
        """Nothing is shared."""

    def _today(self) -> dict[str, int]:
        day = int(self._clock() // DAY_S)
        if day != self._day:
            self._day = day
            self._used = dict.fromkeys(self._used, 0)  # keys known yesterday begin at 0 without a query
        return self._used

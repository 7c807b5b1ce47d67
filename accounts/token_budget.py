"""Token budgets: tokens per key and UTC day.

A turn reserves an upper bound of its tokens when it is admitted and settles for what it used when it ends. So however
many connections a key has, its budget is overshot by one turn at most. Tokens are counted for keys without a budget,
too: an operator may set one at any moment.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from accounts.breaker import DependencyAway
from accounts.callers import Caller

DAY_S = 86_400
Clock = Callable[[], float]
Seed = Callable[[str, float], Awaitable[int]]
"""``(key prefix, now)`` → tokens written to the database since midnight UTC. Raises :class:`DependencyAway`."""


def until_midnight(now: float) -> int:
    """Whole seconds until the next UTC day, at least 1."""
    return max(1, math.ceil(DAY_S - now % DAY_S))


class Reservation(Protocol):
    """Tokens set aside for one running turn."""

    def settle(self, tokens: int) -> None:
        """Give the reservation back and count what the turn used. Never waits; a second call does nothing.

        Args:
            tokens: Prompts and output of both engines. 0 for a turn that did not run.
        """
        ...


@dataclass(frozen=True, slots=True)
class UnsharedTokens:
    """Tokens that one process has counted and could not share: see :meth:`TokenBudget.unshared`."""

    prefix: str
    day: int
    process: str
    tokens: int


class TokenBudget(Protocol):
    """What is left of a key's day. A turn that runs over midnight counts for the day it ends in."""

    async def open(self, caller: Caller) -> None:
        """Read what the key has used today, where it has a budget. Once per connection, before its first turn.

        May query the database; a database that does not answer delays nothing and is asked again later.
        """
        ...

    async def remaining(self, caller: Caller) -> int | None:
        """Tokens left today, running turns' reservations taken off; may be negative. None: the key has no budget."""
        ...

    async def reserve(self, caller: Caller, tokens: int) -> Reservation | None:
        """Admit a turn, if any token of the budget is left.

        Args:
            caller: Whose budget.
            tokens: Upper bound of what the turn will use.

        Returns:
            A reservation to settle when the turn has ended, or None: the budget is used up. Waits for no longer than
            ``accounts.redis_connection.CALL_TIMEOUT_S``.
        """
        ...

    def charge(self, caller: Caller, tokens: int) -> None:
        """Count tokens without a reservation. Never waits."""
        ...

    def retry_in(self) -> int:
        """Seconds until the next UTC day begins."""
        ...

    def unshared(self) -> list[UnsharedTokens]:
        """What other processes do not know yet. Not empty after :meth:`close` where Redis did not answer."""
        ...

    def restore(self, unshared: list[UnsharedTokens]) -> None:
        """Share what an ended process could not."""
        ...

    async def close(self) -> None:
        """Share what is not shared yet. Bounded by the client's time limits."""
        ...


@dataclass(slots=True, eq=False)
class _Day:
    """One key's day. ``before`` was used before this process counted, ``spent`` since."""

    number: int
    before: int = 0
    spent: int = 0
    reserved: int = 0
    seeded: bool = False

    @property
    def used(self) -> int:
        return self.before + self.spent + self.reserved


class _MemoryReservation:
    __slots__ = ("_caller", "_day", "_owner", "_tokens")

    def __init__(self, owner: MemoryTokenBudget, caller: Caller, day: _Day, tokens: int) -> None:
        self._owner: MemoryTokenBudget | None = owner
        self._caller = caller
        self._day = day
        self._tokens = tokens

    def settle(self, tokens: int) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            self._day.reserved -= self._tokens
            owner.charge(self._caller, tokens)


class MemoryTokenBudget:
    """Budgets of one process."""

    def __init__(self, seed: Seed, clock: Clock = time.time) -> None:
        self._seed = seed
        self._clock = clock
        self._days: dict[str, _Day] = {}

    async def open(self, caller: Caller) -> None:
        """See :class:`TokenBudget`."""
        day = self._today(caller.prefix)
        if caller.limits.tokens_per_day is None or day.seeded:
            return
        spent = day.spent
        try:
            written = await self._seed(caller.prefix, self._clock())
        except DependencyAway:
            return
        if not day.seeded:
            day.seeded, day.before = True, max(0, written - spent)

    async def remaining(self, caller: Caller) -> int | None:
        """See :class:`TokenBudget`."""
        limit = caller.limits.tokens_per_day
        return None if limit is None else limit - self._today(caller.prefix).used

    async def reserve(self, caller: Caller, tokens: int) -> Reservation | None:
        """See :class:`TokenBudget`."""
        day, limit = self._today(caller.prefix), caller.limits.tokens_per_day
        if limit is not None and day.used >= limit:
            return None
        day.reserved += tokens
        return _MemoryReservation(self, caller, day, tokens)

    def charge(self, caller: Caller, tokens: int) -> None:
        """See :class:`TokenBudget`."""
        self._today(caller.prefix).spent += tokens

    def retry_in(self) -> int:
        """See :class:`TokenBudget`."""
        return until_midnight(self._clock())

    def unshared(self) -> list[UnsharedTokens]:
        """Always empty: the database alone is read by the next process."""
        return []

    def restore(self, unshared: list[UnsharedTokens]) -> None:
        """Nothing to do: the tokens are in the usage rows that are taken up as well."""

    async def close(self) -> None:
        """Nothing to do: nothing is shared."""

    def _today(self, prefix: str) -> _Day:
        number = int(self._clock() // DAY_S)
        day = self._days.get(prefix)
        if day is None or day.number != number:
            # A key that was known yesterday begins at 0 without a query.
            day = self._days[prefix] = _Day(number, seeded=day is not None and day.seeded)
        return day

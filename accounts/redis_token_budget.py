"""Tokens per key and UTC day, counted once for all processes in Redis."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.exceptions import RedisError

from accounts.callers import Caller
from accounts.token_budget import DAY_S, Clock, Seed, until_midnight

log = logging.getLogger(__name__)

# A hash per key and day: `total`, and per process the number of its last addition, so that one which was sent twice
# (its answer was lost) counts once. `known` is what this process has seen: after Redis lost its data it starts there.
_ADD = """
local total = tonumber(redis.call('HGET', KEYS[1], 'total') or '0')
local tokens, known, process, number = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
if total < known then total = known end
if redis.call('HGET', KEYS[1], process) ~= number then
  total = total + tokens
  redis.call('HSET', KEYS[1], process, number)
end
redis.call('HSET', KEYS[1], 'total', total)
redis.call('EXPIRE', KEYS[1], 172800)
return total
"""


@dataclass(slots=True)
class _Tally:
    """One key's day as this process knows it. ``sending`` is a part on its way, kept until Redis confirmed it."""

    day: int
    total: int = 0
    waiting: int = 0
    sending: int = 0
    number: int = 0
    seeded: bool = False
    order: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def used(self) -> int:
        return self.total + self.waiting + self.sending


class RedisTokenBudget:
    """See :class:`accounts.token_budget.TokenBudget`. Without Redis it goes on from the last total it saw."""

    def __init__(self, client: Redis, seed: Seed, clock: Clock = time.time) -> None:
        self._seed = seed
        self._clock = clock
        self._process = uuid.uuid4().hex
        self._tallies: dict[str, _Tally] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._add = client.register_script(_ADD)

    async def open(self, caller: Caller) -> None:
        """See :class:`accounts.token_budget.TokenBudget`."""
        tally = self._today(caller.prefix)
        if not tally.seeded:
            used = await self._seed(caller.prefix, self._clock())
            if not tally.seeded:
                tally.seeded = True
                if tally.day == int(self._clock() // DAY_S):
                    tally.total = max(tally.total, used)
        await asyncio.shield(self._start_sharing(caller.prefix, self._today(caller.prefix)))

    async def remaining(self, caller: Caller) -> int | None:
        """See :class:`accounts.token_budget.TokenBudget`. One round trip, only for keys that have a budget."""
        limit = caller.limits.tokens_per_day
        if limit is None:
            return None
        tally = self._today(caller.prefix)
        # In a task of its own: on Python 3.11 the client's `wait_for` may swallow the cancellation of a turn.
        await asyncio.shield(self._start_sharing(caller.prefix, tally))
        return limit - tally.used

    def charge(self, caller: Caller, tokens: int) -> None:
        """See :class:`accounts.token_budget.TokenBudget`."""
        tally = self._today(caller.prefix)
        tally.waiting += tokens
        self._start_sharing(caller.prefix, tally)

    def retry_in(self) -> int:
        """See :class:`accounts.token_budget.TokenBudget`."""
        return until_midnight(self._clock())

    async def close(self) -> None:
        """Waits for what is on its way."""
        await asyncio.gather(*self._tasks)

    def _today(self, prefix: str) -> _Tally:
        day = int(self._clock() // DAY_S)
        tally = self._tallies.get(prefix)
        if tally is None or tally.day != day:
            tally = self._tallies[prefix] = _Tally(day, seeded=tally is not None)
        return tally

    def _start_sharing(self, prefix: str, tally: _Tally) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._share(prefix, tally), name="token budget")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _share(self, prefix: str, tally: _Tally) -> None:
        async with tally.order:
            if not tally.sending:
                tally.sending, tally.waiting = tally.waiting, 0
                tally.number += 1
            try:
                total = await self._add(
                    keys=[f"yap:tokens:{prefix}:{tally.day}"],
                    args=[tally.sending, tally.total, self._process, tally.number],
                )
            except RedisError as error:
                log.warning("token budget: Redis does not answer (%s)", type(error).__name__)
                return
            tally.total, tally.sending = int(total), 0

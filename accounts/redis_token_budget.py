"""Token budgets shared by all processes through Redis: a sum of one counter per process.

Each process writes the total that it has counted today, not additions, and the larger of two values of one counter
wins (a grow-only counter: Shapiro et al., "A comprehensive study of Convergent and Commutative Replicated Data Types",
2011, section 3.1.1). So a question that is sent twice counts once, what was counted while Redis was away is added to
what others counted, and after Redis has lost its data the processes write the same sum back.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from accounts.breaker import DependencyAway
from accounts.callers import Caller
from accounts.redis_connection import SharedRedis
from accounts.token_budget import DAY_S, Clock, Reservation, Seed, UnsharedTokens, until_midnight

RESERVATION_S = 15.0
"""Lease of a process's reservations: those of a killed process end by themselves."""
_AT_ONCE = 50  # questions sent side by side when everything is written back

# A hash per key and day. `s:PROCESS` = tokens counted by that process. `r:PROCESS` = "tokens:until ms" reserved by it.
# `base` = "ms:tokens": tokens in the database that no counter holds, and when that was read: the earliest reading wins,
# because a later one may contain what a process has counted that had not written its counter back yet.
_SYNC = """
local hash, me = KEYS[2], ARGV[3]
local spent, reserved, lease = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local limit, want, my_at, my_base, rows =
  tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local function raise(name, value)
  if value > tonumber(redis.call('HGET', hash, name) or '0') then redis.call('HSET', hash, name, value) end
end
raise('s:' .. me, spent)
for i = 12, #ARGV, 2 do raise('s:' .. ARGV[i], tonumber(ARGV[i + 1])) end

local total, others, counters, at, base = 0, 0, {}, 0, 0
local all = redis.call('HGETALL', hash)
for i = 1, #all, 2 do
  local kind, process = string.match(all[i], '^([sr]):(.+)$')
  if kind == 's' then
    total = total + tonumber(all[i + 1])
    if process ~= me then
      counters[#counters + 1] = process
      counters[#counters + 1] = tonumber(all[i + 1])
    end
  else
    local first, second = string.match(all[i + 1], '^(%d+):(%d+)$')
    if kind == nil then
      at, base = tonumber(first), tonumber(second)
    elseif process ~= me then
      if tonumber(second) > now then others = others + tonumber(first) else redis.call('HDEL', hash, all[i]) end
    end
  end
end
if my_at > 0 and (at == 0 or my_at < at) then
  at, base = my_at, my_base
elseif my_at == at then
  base = math.max(base, my_base)
end
if rows >= 0 then base = math.max(base, rows - total) end
if at > 0 then
  redis.call('HSET', hash, 'base', string.format('%.0f', at) .. ':' .. string.format('%.0f', base))
end
local granted = 1
if want > 0 then
  if base + total + others + reserved >= limit then granted = 0 else reserved = reserved + want end
end
if reserved > 0 then
  redis.call('HSET', hash, 'r:' .. me, reserved .. ':' .. string.format('%.0f', now + lease))
else
  redis.call('HDEL', hash, 'r:' .. me)
end
redis.call('EXPIRE', hash, 172800)
return {epoch, granted, at, base, others, unpack(counters)}
"""


@dataclass(slots=True, eq=False)
class _Tally:
    """One key's day as this process knows it. All counts are tokens."""

    prefix: str
    day: int
    spent: int = 0
    """Counted by this process."""
    reserved: int = 0
    """Set aside for running turns of this process."""
    shared: int = 0
    """The part of ``spent`` that Redis has confirmed."""
    base: int = 0
    """Used today and in no counter."""
    base_at: int = 0
    """When ``base`` was read, in Unix milliseconds; 0: not yet."""
    counters: dict[str, int] = field(default_factory=dict)
    """What other processes counted, as far as Redis has said."""
    others_reserved: int = 0
    leased: bool = False
    """Whether Redis holds a lease of this process."""
    recheck: bool = False
    """Whether the database may know more than all counters: Redis has lost its data."""
    order: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def used(self) -> int:
        """Tokens of all processes."""
        return self.base + sum(self.counters.values()) + self.spent

    @property
    def changed(self) -> bool:
        """Whether there is something to write: a count, a lease to renew or to end."""
        return self.spent != self.shared or self.reserved > 0 or self.leased


class _RedisReservation:
    __slots__ = ("_caller", "_owner", "_tally", "_tokens")

    def __init__(self, owner: RedisTokenBudget, caller: Caller, tally: _Tally, tokens: int) -> None:
        self._owner: RedisTokenBudget | None = owner
        self._caller = caller
        self._tally = tally
        self._tokens = tokens

    def settle(self, tokens: int) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            self._tally.reserved -= self._tokens
            owner.charge(self._caller, tokens)


class RedisTokenBudget:
    """See :class:`accounts.token_budget.TokenBudget`. Without Redis it counts on from the last sum that it has seen."""

    def __init__(self, redis: SharedRedis, seed: Seed, clock: Clock = time.time) -> None:
        self._redis = redis
        self._seed = seed
        self._clock = clock
        self._process = uuid.uuid4().hex
        self._tallies: dict[tuple[str, int], _Tally] = {}
        self._sharing: set[asyncio.Task[None]] = set()
        self._sync_script = redis.script(_SYNC)
        redis.join(self)

    async def open(self, caller: Caller) -> None:
        """See :class:`accounts.token_budget.TokenBudget`."""
        if caller.limits.tokens_per_day is None:
            return
        tally = self._today(caller.prefix)
        await self._share_shielded(tally)
        if not tally.base_at:
            await self._read_base(tally)
            await self._share_shielded(tally)

    async def remaining(self, caller: Caller) -> int | None:
        """See :class:`accounts.token_budget.TokenBudget`. One round trip, only for keys that have a budget."""
        limit = caller.limits.tokens_per_day
        if limit is None:
            return None
        tally = self._today(caller.prefix)
        await self._share_shielded(tally)
        return limit - tally.used - tally.reserved - tally.others_reserved

    async def reserve(self, caller: Caller, tokens: int) -> Reservation | None:
        """See :class:`accounts.token_budget.TokenBudget`. One round trip, only for keys that have a budget."""
        tally, limit = self._today(caller.prefix), caller.limits.tokens_per_day
        if limit is None:
            return _RedisReservation(self, caller, tally, 0)
        asking = asyncio.get_running_loop().create_task(self._reserve(caller, tally, limit, tokens), name="reserve")
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(_give_back)
            raise

    def charge(self, caller: Caller, tokens: int) -> None:
        """See :class:`accounts.token_budget.TokenBudget`."""
        tally = self._today(caller.prefix)
        tally.spent += tokens
        if not self._redis.breaker.away:
            task = asyncio.get_running_loop().create_task(self._share(tally), name="token budget")
            self._sharing.add(task)
            task.add_done_callback(self._sharing.discard)

    def retry_in(self) -> int:
        """See :class:`accounts.token_budget.TokenBudget`."""
        return until_midnight(self._clock())

    def unshared(self) -> list[UnsharedTokens]:
        """See :class:`accounts.token_budget.TokenBudget`."""
        return [
            UnsharedTokens(tally.prefix, tally.day, self._process, tally.spent)
            for tally in self._tallies.values()
            if tally.spent != tally.shared
        ]

    def restore(self, unshared: list[UnsharedTokens]) -> None:
        """See :class:`accounts.token_budget.TokenBudget`."""
        today = int(self._clock() // DAY_S)
        for one in unshared:
            if one.day == today:
                tally = self._today(one.prefix)
                tally.counters[one.process] = max(one.tokens, tally.counters.get(one.process, 0))
                tally.shared = -1  # to be written with the next beat

    async def close(self) -> None:
        """See :class:`accounts.token_budget.TokenBudget`."""
        if self._sharing:
            await asyncio.wait(tuple(self._sharing), timeout=1.0)
        await self.beat()

    # -- accounts.redis_connection.SharedPart --------------------------------------------------------------------------

    async def write_back(self) -> None:
        """Write every counter that this process has seen today, its own and those of processes that have ended."""
        today = int(self._clock() // DAY_S)
        tallies = [tally for tally in self._tallies.values() if tally.day == today]
        for first in range(0, len(tallies), _AT_ONCE):
            batch = tallies[first : first + _AT_ONCE]
            await asyncio.gather(*(self._write_whole(tally) for tally in batch))

    async def beat(self) -> None:
        """Share what has changed, renew the leases of reservations, compare with the database after a loss of data."""
        today = int(self._clock() // DAY_S)
        for key, tally in tuple(self._tallies.items()):
            if tally.day < today - 1:
                del self._tallies[key]
            elif tally.day == today and tally.recheck and not self._redis.settling:
                await self._compare(tally)
            elif tally.changed:
                await self._share(tally)
            if self._redis.breaker.away:
                return

    # -- one tally -----------------------------------------------------------------------------------------------------

    async def _read_base(self, tally: _Tally) -> None:
        """Read what the database has, for a key that neither this process nor Redis knows."""
        spent = tally.spent
        with suppress(DependencyAway):
            rows = await self._seed(tally.prefix, self._clock())
            if not tally.base_at:
                tally.base, tally.base_at = max(0, rows - spent), int(self._clock() * 1000)

    async def _compare(self, tally: _Tally) -> None:
        """Once all living processes have written back: the database may hold the last turns of ended ones as well."""
        with suppress(DependencyAway):
            rows = await self._seed(tally.prefix, self._clock())
            async with tally.order:
                if await self._sync(tally, rows=rows) is not None:
                    tally.recheck = False

    async def _write_whole(self, tally: _Tally) -> None:
        spent = tally.spent
        answer = await self._redis.call_now(self._sync_script, self._keys(tally), self._arguments(tally, whole=True))
        tally.recheck = True
        self._take(tally, answer, spent)

    async def _reserve(self, caller: Caller, tally: _Tally, limit: int, tokens: int) -> Reservation | None:
        async with tally.order:
            granted = await self._sync(tally, limit=limit, want=tokens)
            if granted is None:
                granted = tally.used + tally.reserved < limit
            if not granted:
                return None
            tally.reserved += tokens
            return _RedisReservation(self, caller, tally, tokens)

    async def _share_shielded(self, tally: _Tally) -> None:
        # In a task of its own: on Python 3.11 the client's `wait_for` may swallow the cancellation of a turn.
        await asyncio.shield(asyncio.get_running_loop().create_task(self._share(tally), name="token budget"))

    async def _share(self, tally: _Tally) -> None:
        async with tally.order:
            await self._sync(tally)

    async def _sync(self, tally: _Tally, *, limit: int = 0, want: int = 0, rows: int = -1) -> bool | None:
        """Write and read one tally, under its lock. None: Redis does not answer; False: no token is left."""
        spent = tally.spent
        arguments = self._arguments(tally, whole=tally.shared < 0, limit=limit, want=want, rows=rows)
        try:
            answer = await self._redis.call(self._sync_script, self._keys(tally), arguments)
        except DependencyAway:
            return None
        self._take(tally, answer, spent)
        return bool(answer[0])

    def _keys(self, tally: _Tally) -> list[str]:
        return [f"{{yap}}:tokens:{tally.prefix}:{tally.day}"]

    def _arguments(
        self, tally: _Tally, *, whole: bool, limit: int = 0, want: int = 0, rows: int = -1
    ) -> list[str | int]:
        lease = int(RESERVATION_S * 1000)
        others: list[str | int] = []
        for process, tokens in tally.counters.items() if whole else ():
            others += (process, tokens)
        own: list[str | int] = [
            self._process,
            tally.spent,
            tally.reserved,
            lease,
            limit,
            want,
            tally.base_at,
            tally.base,
            rows,
        ]
        return [*own, *others]

    def _take(self, tally: _Tally, answer: list[Any], spent: int) -> None:
        """Keep what Redis has said; ``spent`` is the count that the question carried."""
        _, at, base, tally.others_reserved, *counters = answer
        if at and (not tally.base_at or at <= tally.base_at):  # else it was read here meanwhile
            tally.base_at, tally.base = at, base
        tally.counters |= {name.decode(): tokens for name, tokens in zip(counters[::2], counters[1::2], strict=True)}
        tally.shared = spent
        tally.leased = tally.reserved > 0

    def _today(self, prefix: str) -> _Tally:
        day = int(self._clock() // DAY_S)
        tally = self._tallies.get((prefix, day))
        if tally is None:
            # A key that was known yesterday begins at 0 without a query.
            known = (prefix, day - 1) in self._tallies
            tally = self._tallies[prefix, day] = _Tally(prefix, day, base_at=day * DAY_S * 1000 if known else 0)
        return tally


def _give_back(asking: asyncio.Task[Reservation | None]) -> None:
    if not asking.cancelled() and asking.exception() is None and (reservation := asking.result()) is not None:
        reservation.settle(0)

"""Connection slots shared by all processes through Redis. A slot is a lease, so a killed process's slots expire."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence

from accounts.breaker import DependencyAway
from accounts.callers import Caller
from accounts.connection_slots import Capacity, ConnectionSlot, capacity
from accounts.redis_connection import LEASE_S, SETTLE_S, SharedRedis
from accounts.slot_requests import SlotRequests

log = logging.getLogger(__name__)

_FORGET_BEATS = 3  # a question that had no answer may still be carried out, up to this many heartbeats later
_ALL = "{yap}:slots"

# Each sorted set holds members scored by the millisecond their lease ends, by Redis' own clock. KEYS[2] is the server's
# set, the other keys are those of API keys.
_EXPIRE = "for i = 2, #KEYS do redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now) end\n"
# Arguments: lease in ms, the server's limit, how many slots of all processes this process knows of; then for each
# request the index of its key's set, that key's own limit or -1, and the member. Earlier requests are granted first.
_ACQUIRE = (
    _EXPIRE
    + """
local lease, max = tonumber(ARGV[3]), tonumber(ARGV[4])
local all = math.max(redis.call('ZCARD', KEYS[2]), tonumber(ARGV[5]))
local answer = {epoch}
for i = 6, #ARGV, 3 do
  local key, own, member = KEYS[tonumber(ARGV[i])], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local granted = 1
  if not redis.call('ZSCORE', KEYS[2], member) then
    if all >= max or (own >= 0 and redis.call('ZCARD', key) >= own) then granted = 0 else all = all + 1 end
  end
  if granted == 1 then
    redis.call('ZADD', KEYS[2], now + lease, member)
    redis.call('ZADD', key, now + lease, member)
    redis.call('PEXPIRE', KEYS[2], lease * 2)
    redis.call('PEXPIRE', key, lease * 2)
  end
  answer[#answer + 1] = granted
end
return answer
"""
)
# Arguments: lease in ms, then for each member the index of its key's set and its name; a negative index removes it.
_RENEW = (
    """
local lease = tonumber(ARGV[3])
for i = 4, #ARGV, 2 do
  local index, member = tonumber(ARGV[i]), ARGV[i + 1]
  for _, key in ipairs({KEYS[2], KEYS[math.abs(index)]}) do
    if index < 0 then
      redis.call('ZREM', key, member)
    else
      redis.call('ZADD', key, now + lease, member)
      redis.call('PEXPIRE', key, lease * 2)
    end
  end
end
"""
    + _EXPIRE
    + "return {epoch, redis.call('ZCARD', KEYS[2])}"
)
_COUNT = _EXPIRE + "return {epoch, redis.call('ZCARD', KEYS[2]), redis.call('ZCARD', KEYS[3])}"


def _own(prefix: str) -> str:
    return f"{_ALL}:{prefix}"


class _RedisSlot:
    __slots__ = ("_owner", "member", "prefix")

    def __init__(self, owner: RedisConnectionSlots, prefix: str) -> None:
        self._owner: RedisConnectionSlots | None = owner
        self.prefix = prefix
        self.member = uuid.uuid4().hex

    def release(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner._release(self)


class RedisConnectionSlots:
    """See :class:`accounts.connection_slots.ConnectionSlots`.

    One Lua script counts, so two processes never share the last slot. All connections of this process that wait are one
    question. While Redis does not answer, this process counts
    its own slots only (in the first seconds also the last known number of the others'). Every second, and before
    anything else when Redis is back or has lost its data, all slots that the process holds are written to Redis. Where
    they add up to more than there are, Redis refuses further ones until they fit.

    Args:
        redis: The process's Redis.
        maximum: Slots of all processes together.
        lease_s: How long a slot outlives its process (seconds).
    """

    def __init__(self, redis: SharedRedis, maximum: int, *, lease_s: float = LEASE_S) -> None:
        self._redis = redis
        self._maximum = maximum
        self._lease_ms = int(lease_s * 1000)
        self._held: dict[str, _RedisSlot] = {}
        self._forgotten: dict[str, tuple[str, int]] = {}  # released member → its key's prefix, heartbeats left
        self._others = 0  # slots of other processes, as of the last heartbeat
        self._order = asyncio.Lock()  # a renewal must not write back a slot that is being released
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = False
        self._acquire = redis.script(_ACQUIRE)
        self._renew = redis.script(_RENEW)
        self._count = redis.script(_COUNT)
        self._requests = SlotRequests(self._try, lambda subject: subject[0].release())
        redis.join(self)

    async def acquire(self, caller: Caller, timeout_s: float) -> ConnectionSlot | None:
        """See :class:`accounts.connection_slots.ConnectionSlots`."""
        slot = _RedisSlot(self, caller.prefix)
        if await self._requests.wait((slot, caller), timeout_s):
            return slot
        if self._redis.breaker.away:
            slot.release()  # a question without an answer may have been granted
        return None

    async def snapshot(self, caller: Caller | None = None) -> Capacity:
        """See :class:`accounts.connection_slots.ConnectionSlots`."""
        prefix = caller.prefix if caller else ""
        try:
            total, own = await self._redis.call(self._count, [_ALL, _own(prefix)], [])
        except DependencyAway:
            total, own = len(self._held), self._mine(prefix)
        limit = caller.limits.connections if caller else None
        if limit is not None and own >= limit and total < self._maximum:
            return capacity(own, limit)
        return capacity(total, self._maximum)

    @property
    def over_granted(self) -> bool:
        """See :class:`accounts.connection_slots.ConnectionSlots`."""
        return self._over

    async def close(self) -> None:
        """See :class:`accounts.connection_slots.ConnectionSlots`."""
        for slot in tuple(self._held.values()):
            slot.release()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=1.0)

    # -- accounts.redis_connection.SharedPart --------------------------------------------------------------------------

    async def write_back(self) -> None:
        """Write all slots that this process holds, and remove those that it has released meanwhile."""
        async with self._order:
            (total,) = await self._redis.call_now(self._renew, *self._renewal(self._held.values(), self._forgotten))
            self._seen(total)

    async def beat(self) -> None:
        """Renew the leases and learn what other processes hold."""
        async with self._order:
            (total,) = await self._redis.call_now(self._renew, *self._renewal(self._held.values(), self._forgotten))
            left = {member: (prefix, beats - 1) for member, (prefix, beats) in self._forgotten.items()}
            self._forgotten = {member: entry for member, entry in left.items() if entry[1] > 0}
            self._seen(total)

    def _seen(self, total: int) -> None:
        others = max(0, total - len(self._held))
        # Until all processes have written their slots back, the number from before is the better one.
        self._others = max(others, self._others) if self._redis.settling else others
        over = total > self._maximum
        if over and not self._over:
            log.warning("slots: %d connections hold %d slots: no new ones until they fit", total, self._maximum)
        elif self._over and not over:
            log.warning("slots: %d connections hold %d slots again", total, self._maximum)
        self._over = over

    def _renewal(
        self, held: Iterable[_RedisSlot], forgotten: dict[str, tuple[str, int]]
    ) -> tuple[list[str], list[str | int]]:
        """Keys and arguments of the renewing script."""
        held = list(held)
        prefixes = list(dict.fromkeys([slot.prefix for slot in held] + [prefix for prefix, _ in forgotten.values()]))
        index = {prefix: place for place, prefix in enumerate(prefixes, start=3)}  # KEYS[1] and [2] are epoch and all
        args: list[str | int] = [self._lease_ms]
        for member, (prefix, _) in forgotten.items():
            args += (-index[prefix], member)
        for slot in held:
            args += (index[slot.prefix], slot.member)
        return [_ALL, *(_own(prefix) for prefix in prefixes)], args

    # -- slots ---------------------------------------------------------------------------------------------------------

    async def _try(self, wanted: Sequence[tuple[_RedisSlot, Caller]]) -> list[bool]:
        """Ask once for all of these slots."""
        prefixes = list(dict.fromkeys(slot.prefix for slot, _ in wanted))
        index = {prefix: place for place, prefix in enumerate(prefixes, start=3)}

        def arguments() -> list[str | int]:
            # Where other processes may not have written their slots back yet, the last known number holds.
            known = self._others + len(self._held) if self._redis.settling else 0
            args: list[str | int] = [self._lease_ms, self._maximum, known]
            for slot, caller in wanted:
                own = caller.limits.connections
                args += (index[slot.prefix], -1 if own is None else own, slot.member)
            return args

        try:
            keys = [_ALL, *(_own(prefix) for prefix in prefixes)]
            granted = [bool(each) for each in await self._redis.call(self._acquire, keys, arguments)]
        except DependencyAway:
            granted = []
            for slot, caller in wanted:
                granted.append(self._fits_here(caller))
                if granted[-1]:
                    self._held[slot.member] = slot
        for (slot, _), yes in zip(wanted, granted, strict=True):
            if yes:
                self._held[slot.member] = slot
        return granted

    def _fits_here(self, caller: Caller) -> bool:
        """Decide without Redis. For some seconds other processes' slots count as before: they hold them still."""
        others = self._others if self._redis.breaker.away_s < SETTLE_S else 0
        own = caller.limits.connections
        return len(self._held) + others < self._maximum and (own is None or self._mine(caller.prefix) < own)

    def _mine(self, prefix: str) -> int:
        return Counter(slot.prefix for slot in self._held.values())[prefix]

    def _release(self, slot: _RedisSlot) -> None:
        self._held.pop(slot.member, None)
        self._forgotten[slot.member] = (slot.prefix, _FORGET_BEATS)
        if not self._redis.breaker.away:
            task = asyncio.get_running_loop().create_task(self._forget(slot), name="slot release")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forget(self, slot: _RedisSlot) -> None:
        entry = {slot.member: (slot.prefix, 0)}
        async with self._order:
            try:
                (total,) = await self._redis.call_now(self._renew, *self._renewal((), entry))
                self._seen(total)
            except DependencyAway:
                pass  # the next heartbeat that is answered removes it
        self._requests.changed()

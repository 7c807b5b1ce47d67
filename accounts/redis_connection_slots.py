"""Connection slots shared by all processes through Redis. A slot is a lease, so a killed process's slots expire."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections import Counter
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from accounts.callers import Caller
from accounts.connection_slots import Capacity, ConnectionSlot, capacity

log = logging.getLogger(__name__)

_POLL_S = 0.02
_ALL = "{yap}:slots"  # the braces keep both sets on one node of a cluster

# Each set holds members scored by the millisecond their lease ends, by Redis' own clock.
_NOW = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for _, key in ipairs(KEYS) do redis.call('ZREMRANGEBYSCORE', key, '-inf', now) end
"""
_ACQUIRE = (
    _NOW
    + """
local member, lease, max, own = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not redis.call('ZSCORE', KEYS[1], member) then
  if redis.call('ZCARD', KEYS[1]) >= max then return 0 end
  if own >= 0 and redis.call('ZCARD', KEYS[2]) >= own then return 0 end
end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, now + lease, member)
  redis.call('PEXPIRE', key, lease * 2)
end
return 1
"""
)
_COUNT = _NOW + "return {redis.call('ZCARD', KEYS[1]), redis.call('ZCARD', KEYS[2])}"


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

    One Lua script counts, so two processes never share the last slot.

    While Redis does not answer, this process goes by what it holds itself; the heartbeat tells Redis when it is back.
    """

    def __init__(self, client: Redis, maximum: int, *, lease_s: float = 15.0) -> None:
        self._client = client
        self._maximum = maximum
        self._lease_ms = int(lease_s * 1000)
        self._held: dict[str, _RedisSlot] = {}
        self._order = asyncio.Lock()  # a heartbeat must not write back what is being released
        self._tasks: set[asyncio.Task[None]] = set()
        self._heart: asyncio.Task[None] | None = None
        self._reachable = True
        self._acquire = client.register_script(_ACQUIRE)
        self._count = client.register_script(_COUNT)

    async def acquire(self, caller: Caller, timeout_s: float) -> ConnectionSlot | None:
        """See :class:`accounts.connection_slots.ConnectionSlots`."""
        if self._heart is None:
            self._heart = asyncio.create_task(self._beat(), name="slots heartbeat")
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        slot = _RedisSlot(self, caller.prefix)
        while not await self._ask(slot, caller):
            left = deadline - clock()
            if left <= 0:
                if not self._reachable:  # Redis may have said yes and the answer been lost
                    slot.release()
                return None
            await asyncio.sleep(min(left, _POLL_S * random.uniform(0.5, 1.5)))
        self._held[slot.member] = slot
        return slot

    async def snapshot(self, caller: Caller | None = None) -> Capacity:
        """See :class:`accounts.connection_slots.ConnectionSlots`."""
        prefix = caller.prefix if caller else ""
        try:
            total, own = await self._count(keys=[_ALL, _own(prefix)])
        except RedisError as error:
            self._lost(error)
            total, own = len(self._held), self._mine(prefix)
        limit = caller.limits.connections if caller else None
        if limit is not None and own >= limit and total < self._maximum:
            return capacity(own, limit)
        return capacity(total, self._maximum)

    async def close(self) -> None:
        """Gives back everything this process holds."""
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.gather(self._heart, return_exceptions=True)
            self._heart = None
        for slot in tuple(self._held.values()):
            slot.release()
        await asyncio.gather(*self._tasks)

    async def _ask(self, slot: _RedisSlot, caller: Caller) -> bool:
        """A cancelled caller leaves at once; what its question still brings is given back when it has been answered.

        (Nor is the client awaited directly: on Python 3.11 its ``wait_for`` may swallow a cancellation.)
        """
        asking = asyncio.get_running_loop().create_task(self._try(slot, caller), name="slot request")
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(lambda _: slot.release())
            raise

    async def _try(self, slot: _RedisSlot, caller: Caller) -> bool:
        own = caller.limits.connections
        try:
            granted = await self._lease(slot, self._maximum, -1 if own is None else own)
        except RedisError as error:
            self._lost(error)
            return len(self._held) < self._maximum and (own is None or self._mine(caller.prefix) < own)
        self._found()
        return granted

    async def _lease(self, slot: _RedisSlot, maximum: int, own: int) -> bool:
        keys = [_ALL, _own(slot.prefix)]
        return bool(await self._acquire(keys=keys, args=[slot.member, self._lease_ms, maximum, own]))

    def _mine(self, prefix: str) -> int:
        return Counter(slot.prefix for slot in self._held.values())[prefix]

    def _release(self, slot: _RedisSlot) -> None:
        self._held.pop(slot.member, None)
        task = asyncio.get_running_loop().create_task(self._forget(slot), name="slot release")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forget(self, slot: _RedisSlot) -> None:
        async with self._order:
            try:
                async with self._client.pipeline() as pipe:
                    pipe.zrem(_ALL, slot.member)
                    pipe.zrem(_own(slot.prefix), slot.member)
                    await pipe.execute()
            except RedisError as error:
                self._lost(error)  # the lease runs out

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            async with self._order:
                await self._renew(tuple(self._held.values()))

    async def _renew(self, slots: Sequence[_RedisSlot]) -> None:
        """Renews every lease, or writes it anew where Redis has lost it: the connection lives all the same."""
        try:
            for slot in slots:
                if slot.member in self._held:
                    await self._lease(slot, 1 << 30, -1)
        except RedisError as error:
            self._lost(error)
        else:
            self._found()

    def _lost(self, error: RedisError) -> None:
        if self._reachable:
            log.warning("slots: Redis does not answer (%s), counting in this process alone", type(error).__name__)
        self._reachable = False

    def _found(self) -> None:
        if not self._reachable:
            log.warning("slots: Redis is back")
        self._reachable = True

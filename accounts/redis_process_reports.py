"""Reports of serving processes about themselves, shared through Redis as leases that end with their processes."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

from accounts.breaker import DependencyAway
from accounts.redis_connection import LEASE_S, SharedRedis

log = logging.getLogger(__name__)

_REPORTS = "{yap}:processes"  # hash: process → its report
_LEASES = "{yap}:processes:leases"  # sorted set: process, scored by the millisecond its lease ends, by Redis' own clock
_KEYS = (_LEASES, _REPORTS)

_EXPIRE = """
for _, ended in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do
  redis.call('ZREM', KEYS[2], ended)
  redis.call('HDEL', KEYS[3], ended)
end
"""
# Arguments: lease in ms, the process, its report.
_WRITE = (
    """
local lease = tonumber(ARGV[3])
redis.call('ZADD', KEYS[2], now + lease, ARGV[4])
redis.call('HSET', KEYS[3], ARGV[4], ARGV[5])
redis.call('PEXPIRE', KEYS[2], lease * 2)
redis.call('PEXPIRE', KEYS[3], lease * 2)
"""
    + _EXPIRE
    + "return {epoch}"
)
# Argument: the process.
_REMOVE = "redis.call('ZREM', KEYS[2], ARGV[3])\nredis.call('HDEL', KEYS[3], ARGV[3])\nreturn {epoch}"
_READ = _EXPIRE + "return {epoch, redis.call('HGETALL', KEYS[3])}"


class RedisProcessReports:
    """The report of this process, written every second by the heartbeat, and the reports of the other processes.

    Args:
        redis: The process's Redis.
        lease_s: How long a report outlives its process (seconds).
    """

    def __init__(self, redis: SharedRedis, *, lease_s: float = LEASE_S) -> None:
        self._redis = redis
        self._lease_ms = int(lease_s * 1000)
        self._process = uuid.uuid4().hex
        self._describe: Callable[[], bytes] | None = None
        self._failed = False
        self._write = redis.script(_WRITE)
        self._remove = redis.script(_REMOVE)
        self._read = redis.script(_READ)
        redis.join(self)

    def publish(self, describe: Callable[[], bytes]) -> None:
        """Write what ``describe`` returns at every heartbeat from now on."""
        self._describe = describe

    async def others(self) -> list[bytes]:
        """Return the reports of all other processes that live.

        Raises:
            DependencyAway: Redis does not answer; at once while the breaker is open.
        """
        (flat,) = await self._redis.call(self._read, _KEYS, [])
        reports = dict(zip(flat[::2], flat[1::2], strict=True))
        reports.pop(self._process.encode(), None)
        return list(reports.values())

    async def close(self) -> None:
        """Remove the report of this process. Bounded in time."""
        self._describe = None
        if not self._redis.breaker.away:
            try:
                await self._redis.call_now(self._remove, _KEYS, [self._process])
            except DependencyAway:
                log.info("the report of this process stays in Redis until its lease ends")

    # -- accounts.redis_connection.SharedPart --------------------------------------------------------------------------

    async def write_back(self) -> None:
        """Write the report."""
        await self.beat()

    async def beat(self) -> None:
        """Write the report, which renews its lease."""
        if self._describe is None:
            return
        try:
            report = self._describe()
        except Exception:  # the heartbeat also renews connection slots and must go on
            if not self._failed:
                log.exception("this process cannot be described; other processes do not list it")
            self._failed = True
            return
        self._failed = False
        await self._redis.call_now(self._write, _KEYS, [self._lease_ms, self._process, report])

"""Copies of records in Redis: sealed bytes under a name, with a version, written off the serving loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from redis import Redis
from redis.exceptions import RedisError

from accounts.breaker import DependencyAway
from accounts.redis_connection import SharedRedis

logger = logging.getLogger("yap.dependency")

MAX_WAITING = 1024
"""Copies that wait to be written. Beyond that the oldest is dropped: only that copy is lost."""
MAX_COPY_BYTES = 2 * 1024 * 1024
WRITE_TIMEOUT_S = 0.5
_VERSION_DIGITS = 16

# A copy never replaces a newer one: the version is the beginning of the value. Arguments: the value, milliseconds.
_WRITE = f"""
local old = redis.call('GETRANGE', KEYS[1], 0, {_VERSION_DIGITS - 1})
if old > string.sub(ARGV[1], 1, {_VERSION_DIGITS}) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_READ = "return {epoch, redis.call('GET', KEYS[2])}"

MakeCopy = Callable[[], bytes | None]


class RedisCopies:
    """Writes copies in one thread, the newest of each name, and reads them through the process's Redis.

    A failure of Redis costs the copy and nothing else: while the breaker is open nothing is written or read.

    Args:
        redis: the process's Redis.
        url: ``redis://…``, for the thread's own connection.
        keep_s: how long a copy stays after its last write, in seconds.
        kind: a word that says what is copied; part of the names in Redis.
    """

    def __init__(self, redis: SharedRedis, url: str, keep_s: float, kind: str = "session") -> None:
        self._redis = redis
        self._kind = kind
        self._read = redis.script(_READ)
        self._keep_ms = max(1, int(keep_s * 1000))
        self._client = Redis.from_url(url, socket_timeout=WRITE_TIMEOUT_S, socket_connect_timeout=WRITE_TIMEOUT_S)
        self._write = self._client.register_script(_WRITE)
        self._waiting: OrderedDict[str, tuple[int, MakeCopy] | None] = OrderedDict()  # None deletes
        self._changed = threading.Condition()
        self._ending: Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._failed = False
        self.written = 0

    def put(self, name: str, version: int, make: MakeCopy) -> None:
        """Write a copy soon. Returns at once.

        Args:
            name: letters and digits.
            version: the copy does not replace one with a higher version.
            make: returns the copy; called in the thread.
        """
        self._enqueue(name, (version, make))

    def delete(self, name: str) -> None:
        """Delete a copy soon. Returns at once."""
        self._enqueue(name, None)

    async def get(self, name: str) -> tuple[int, bytes] | None:
        """Return version and bytes of a copy; None where there is none or Redis does not answer."""
        try:
            (value,) = await self._redis.call(self._read, [self._key(name)], [])
        except DependencyAway:
            return None
        if not value or not _VERSION_DIGITS < len(value) <= MAX_COPY_BYTES:
            return None
        return int(value[:_VERSION_DIGITS], 16), value[_VERSION_DIGITS:]

    async def aclose(self) -> None:
        """Write what waits, for a second at most, and end."""
        with self._changed:
            if self._thread is None:
                return
            self._ending = Future()
            self._changed.notify()
        await asyncio.wait({asyncio.wrap_future(self._ending)}, timeout=2 * WRITE_TIMEOUT_S)

    # -- the thread --------------------------------------------------------------------------------

    def _enqueue(self, name: str, copy: tuple[int, MakeCopy] | None) -> None:
        with self._changed:
            self._waiting.pop(name, None)
            self._waiting[name] = copy
            if len(self._waiting) > MAX_WAITING:
                self._waiting.popitem(last=False)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"{self._kind} copies", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._ending is not None:
                        self._client.close()
                        self._ending.set_result(None)
                        return
                    self._changed.wait()
                name, copy = self._waiting.popitem(last=False)
            if self._redis.breaker.away:
                continue
            try:
                self._apply(name, copy)
                self._failed = False
            except (RedisError, OSError) as error:
                if not self._failed:
                    logger.warning("a %s is not copied to redis: %s", self._kind, type(error).__name__)
                self._failed = True
            except Exception:
                logger.exception("a %s cannot be copied to redis", self._kind)

    def _apply(self, name: str, copy: tuple[int, MakeCopy] | None) -> None:
        if copy is None:
            self._client.delete(self._key(name))
            return
        version, make = copy
        made = make()
        if made is not None and len(made) + _VERSION_DIGITS <= MAX_COPY_BYTES:
            self._write(keys=[self._key(name)], args=[b"%016x" % version + made, self._keep_ms])
            self.written += 1

    def _key(self, name: str) -> str:
        return f"{{yap}}:{self._kind}:{name}"

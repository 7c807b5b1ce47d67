"""The Redis of a serving process: one client, one breaker, one heartbeat, for everything that processes share."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from accounts.breaker import RETRY_S, Breaker, DependencyAway

logger = logging.getLogger("yap.dependency")

SOCKET_TIMEOUT_S = 0.2
CALL_TIMEOUT_S = 0.2
"""Limit of one question with its reconnects; an admission asks at most once before the breaker opens."""
_SOCKET_LIMIT_S = 2.0  # of the client, seconds; a question ends earlier
LEASE_S = 10.0
"""How long slots and reports in Redis outlive their process (seconds). Every heartbeat, once a second, renews them."""
_AT_ONCE = 16  # questions; each needs a connection of its own, and no question's time limit holds for its wait here
SETTLE_S = 2.5
"""After Redis was away or has lost its data, other processes need up to this long to write their parts back."""

EPOCH_KEY = "{yap}:epoch"  # the braces keep all keys on one node of a cluster

# Prologue of every script. The epoch names one life of the data: it is lost with them. A process that knows another
# epoch (ARGV[1]) changes nothing and gets the new one, so that it can write its part back first.
_PROLOGUE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = string.format('%.0f', now) .. '-' .. ARGV[2]
  redis.call('SET', KEYS[1], epoch)
end
if ARGV[1] ~= epoch then return {epoch} end
local age = now - tonumber(string.match(epoch, '%d+'))
"""


def connection_options() -> dict[str, Any]:
    """Return options for ``from_url`` of redis-py's pools, synchronous and asynchronous: short limits, no retries."""
    return {"socket_timeout": SOCKET_TIMEOUT_S, "socket_connect_timeout": SOCKET_TIMEOUT_S}


class SharedPart(Protocol):
    """What one component keeps in Redis for this process, and can write back from memory at any time."""

    async def write_back(self) -> None:
        """Write everything that this process holds. Called before anything else after Redis was away or empty."""
        ...

    async def beat(self) -> None:
        """Called every second while Redis answers."""
        ...


class SharedScript:
    """A Lua script with the epoch's prologue. Its own keys begin at ``KEYS[2]``, its arguments at ``ARGV[3]``.

    The script returns a list whose first element is ``epoch``.
    """

    def __init__(self, client: Redis, body: str) -> None:
        self._run = client.register_script(_PROLOGUE + body)

    async def __call__(self, epoch: str, keys: Sequence[str], args: Sequence[Any]) -> list[Any]:
        """Run it once. The first element of the answer is the epoch that Redis has."""
        answer: list[Any] = await self._run(keys=[EPOCH_KEY, *keys], args=[epoch, uuid.uuid4().hex, *args])
        return answer


class SharedRedis:
    """One client for the components of a process, with a time limit and a breaker for all of them together.

    A heartbeat asks once a second while Redis does not answer. When Redis is back, or has lost its data, each component
    first writes its part back; only then are questions answered again.

    Args:
        url: ``redis://…``.
    """

    def __init__(self, url: str) -> None:
        self.breaker = Breaker("redis", "slots and budgets are counted in this process alone")
        # One retry for a connection that the server has closed. Every script here may be run twice.
        stale = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
        # The limit of a question is kept by `_within_limit`, which knows when the loop itself stood still.
        self._client = Redis.from_url(
            url, retry=stale, socket_timeout=_SOCKET_LIMIT_S, socket_connect_timeout=_SOCKET_LIMIT_S
        )
        self._parts: list[SharedPart] = []
        self._epoch = ""
        self._settled_at = 0.0
        self._writing_back = asyncio.Lock()
        self._ping = self.script("return {epoch}")
        self._heart: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[Any]] = set()
        self._gate = asyncio.Semaphore(_AT_ONCE)

    def script(self, body: str) -> SharedScript:
        """Register a Lua script."""
        return SharedScript(self._client, body)

    def join(self, part: SharedPart) -> None:
        """Call this component's :class:`SharedPart` methods from now on."""
        self._parts.append(part)

    @property
    def settling(self) -> bool:
        """Whether other processes may not have written their parts back yet."""
        return asyncio.get_running_loop().time() < self._settled_at

    def start(self) -> None:
        """Start the heartbeat on the running loop. Idempotent."""
        if self._heart is None:
            self._heart = asyncio.get_running_loop().create_task(self._beat(), name="redis heartbeat")

    async def aclose(self) -> None:
        """Stop the heartbeat and close the connections."""
        heart, self._heart = self._heart, None
        if heart is not None:
            heart.cancel()
            await asyncio.wait({heart}, timeout=CALL_TIMEOUT_S)
        if self._asking:  # a question whose connection is closed under it would open another one
            await asyncio.wait(tuple(self._asking), timeout=CALL_TIMEOUT_S)
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._client.aclose()

    async def call(
        self, script: SharedScript, keys: Sequence[str], args: Sequence[Any] | Callable[[], Sequence[Any]]
    ) -> list[Any]:
        """Run a script.

        Args:
            script: What to run.
            keys: Its keys, from ``KEYS[2]`` on.
            args: Its arguments, from ``ARGV[3]`` on. A function is called again where the script is run again, after
                Redis has lost its data.

        Returns:
            The script's answer without the epoch.

        Raises:
            DependencyAway: Redis does not answer; at once while the breaker is open, else after the time limit.
        """
        self.breaker.check()
        async with self._gate:
            self.breaker.check()  # it may have opened while others asked
            answer: list[Any] = await self._within_limit(self._ask(script, keys, args))
        return answer

    async def call_now(self, script: SharedScript, keys: Sequence[str], args: Sequence[Any]) -> list[Any]:
        """The same for :class:`SharedPart` methods: also while the breaker is open, and without writing anything back.

        Raises:
            DependencyAway: Redis does not answer, or has lost its data, which the next heartbeat takes care of.
        """
        answer: list[Any] = await self._within_limit(script(self._epoch, keys, args))
        if answer[0].decode() != self._epoch:
            raise DependencyAway(self.breaker.name)
        return answer[1:]

    async def _ask(
        self, script: SharedScript, keys: Sequence[str], args: Sequence[Any] | Callable[[], Sequence[Any]]
    ) -> list[Any]:
        for _ in range(3):
            epoch = self._epoch
            answer = await script(epoch, keys, args() if callable(args) else args)
            found = answer[0].decode()
            if found == epoch:
                return answer[1:]
            # Shielded: the limit of this question does not end the writing back, which others wait for as well.
            await asyncio.shield(asyncio.create_task(self._adopt(found), name="redis write back"))
        raise DependencyAway(self.breaker.name)

    async def _within_limit(self, asking: Any) -> Any:
        # In a task of its own: on Python 3.11 the client's `wait_for` may swallow a cancellation of the caller.
        task = asyncio.get_running_loop().create_task(asking, name="redis call")
        self._asking.add(task)
        task.add_done_callback(self._asked)
        loop = asyncio.get_running_loop()
        began = loop.time()
        done, _ = await asyncio.wait({task}, timeout=CALL_TIMEOUT_S)
        if not done:  # time for which the loop itself stood still is no time that Redis took
            stall_s = loop.time() - began - CALL_TIMEOUT_S
            done, _ = await asyncio.wait({task}, timeout=min(CALL_TIMEOUT_S, 0.02 + stall_s))
        if not done:
            task.cancel()
            raise self.breaker.failed(f"no answer within {CALL_TIMEOUT_S} s")
        try:
            return task.result()
        except (RedisError, OSError, TimeoutError) as error:
            raise self.breaker.failed(error) from error

    def _asked(self, task: asyncio.Task[Any]) -> None:
        """Take the exception of a question, which nothing waits for any more where its limit has passed."""
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()

    async def _adopt(self, epoch: str) -> None:
        """Begin to use an epoch: write every part back, one caller at a time."""
        async with self._writing_back:
            if epoch == self._epoch:
                return
            if self._epoch:
                logger.warning("redis has lost its data: this process writes back what it holds")
            self._epoch = epoch
            await self._write_back()

    async def _write_back(self) -> None:
        self._settled_at = asyncio.get_running_loop().time() + SETTLE_S
        for part in self._parts:
            await part.write_back()

    async def _beat(self) -> None:
        while True:
            try:
                (found,) = await self._within_limit(self._ping(self._epoch, (), ()))
                if self.breaker.away:
                    async with self._writing_back:
                        self._epoch = found.decode()
                        await self._write_back()
                    self.breaker.answered()
                else:
                    await self._adopt(found.decode())
                for part in self._parts:
                    await part.beat()
            except DependencyAway:
                pass  # the breaker has written a line; the next beat asks again
            await asyncio.sleep(RETRY_S)

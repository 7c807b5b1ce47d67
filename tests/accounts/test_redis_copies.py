"""Copies of sessions in a real Redis: order, bounds, failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis

from accounts import redis_connection, redis_copies
from accounts.redis_connection import SharedRedis
from accounts.redis_copies import MAX_COPY_BYTES, RedisCopies
from tests.engine.waiting import until
from tests.servers import RedisServer


@asynccontextmanager
async def process(url: str, keep_s: float = 60.0) -> AsyncIterator[RedisCopies]:
    shared = SharedRedis(url)
    shared.start()
    copies = RedisCopies(shared, url, keep_s)
    yield copies
    await copies.aclose()
    await shared.aclose()


@pytest.fixture(autouse=True)
def _fast_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_connection, "RETRY_S", 0.05)


async def test_another_process_reads_what_one_writes(redis_server: str) -> None:
    async with process(redis_server) as one, process(redis_server) as other:
        assert await other.get("a") is None
        one.put("a", 1, lambda: b"first")
        await until(lambda: one.written == 1)
        assert await other.get("a") == (1, b"first")
        one.delete("a")
        one.put("b", 1, lambda: b"next")
        await until(lambda: one.written == 2)
        assert await other.get("a") is None


async def test_an_older_version_replaces_nothing(redis_server: str) -> None:
    async with process(redis_server) as one, process(redis_server) as other:
        one.put("a", 2**40, lambda: b"new")
        await until(lambda: one.written == 1)
        other.put("a", 2**40 - 1, lambda: b"old")
        other.put("b", 1, lambda: b"b")
        await until(lambda: other.written == 2)
        assert await one.get("a") == (2**40, b"new")


async def test_a_copy_expires(redis_server: str) -> None:
    async with process(redis_server, keep_s=7.0) as one:
        one.put("a", 1, lambda: b"x")
        await until(lambda: one.written == 1)
        with redis.Redis.from_url(redis_server) as client:
            (key,) = client.keys("*session*")
            assert 6000 < client.pttl(key) <= 7000


async def test_the_newest_of_a_name_is_written_and_the_number_is_bounded(
    redis_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_copies, "MAX_WAITING", 3)
    async with process(redis_server) as one:
        began, go = [], asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow() -> bytes:
            began.append(1)
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
            return b"slow"

        one.put("slow", 1, slow)
        await until(lambda: began)
        for number in range(5):
            one.put("same", number, str(number).encode)
        for name in "abc":
            one.put(name, 1, lambda: b"x")
        go.set()
        await until(lambda: one.written == 4)
        assert await one.get("same") is None  # the oldest of four
        assert await one.get("c") == (1, b"x")


async def test_a_copy_that_is_too_large_or_fails_costs_only_itself(redis_server: str) -> None:
    async with process(redis_server) as one:
        one.put("large", 1, lambda: b"x" * MAX_COPY_BYTES)
        one.put("broken", 1, lambda: bytes(1 // 0))
        one.put("none", 1, lambda: None)
        one.put("a", 1, lambda: b"x")
        await until(lambda: one.written == 1)
        assert await one.get("large") is None
        assert await one.get("a") == (1, b"x")


async def test_what_waits_is_written_at_the_end(redis_server: str) -> None:
    async with process(redis_server) as one:
        for number in range(200):
            one.put(f"n{number}", 1, lambda: b"x")
    async with process(redis_server) as other:
        assert await other.get("n199") == (1, b"x")


async def test_without_redis_nothing_waits(own_redis: RedisServer) -> None:
    async with process(own_redis.url) as one:
        one.put("a", 1, lambda: b"x")
        await until(lambda: one.written == 1)
        own_redis.freeze()
        began = time.monotonic()
        one.put("a", 2, lambda: b"y")
        assert time.monotonic() - began < 0.05
        assert await one.get("a") is None
        assert time.monotonic() - began < 0.5
        began = time.monotonic()
        assert await one.get("a") is None
        assert time.monotonic() - began < 0.1  # the breaker is open
        own_redis.thaw()
        async with asyncio.timeout(10):
            while await one.get("a") is None:  # noqa: ASYNC110 - what is waited for is in Redis
                await asyncio.sleep(0.02)

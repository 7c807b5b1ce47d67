from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from accounts import redis_connection
from accounts.breaker import DependencyAway
from accounts.redis_connection import SharedRedis
from accounts.redis_process_reports import RedisProcessReports
from tests.servers import RedisServer

LEASE_S = 0.3


@asynccontextmanager
async def process(
    url: str, name: str, describe: Callable[[], bytes] | None = None, lease_s: float = LEASE_S
) -> AsyncIterator[RedisProcessReports]:
    """The reports of one serving process; it ends as a killed one does, without a word."""
    redis = SharedRedis(url)
    reports = RedisProcessReports(redis, lease_s=lease_s)
    reports.publish(describe or json.dumps({"name": name}).encode)
    redis.start()
    yield reports
    await redis.aclose()


@pytest.fixture(autouse=True)
def _fast_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_connection, "RETRY_S", 0.05)


async def names(reports: RedisProcessReports) -> set[str]:
    return {json.loads(report)["name"] for report in await reports.others()}


async def until(reports: RedisProcessReports, expected: set[str], limit_s: float = 5.0) -> float:
    began = time.monotonic()
    async with asyncio.timeout(limit_s):
        while await names(reports) != expected:  # noqa: ASYNC110 - what is waited for is in Redis
            await asyncio.sleep(0.005)
    return time.monotonic() - began


async def back(reports: RedisProcessReports, expected: set[str]) -> None:
    """The same, from a Redis that may not answer yet."""
    async with asyncio.timeout(5):
        while True:
            with suppress(DependencyAway):
                await until(reports, expected)
                return
            await asyncio.sleep(0.01)


async def test_processes_see_each_other_and_not_themselves(redis_server: str) -> None:
    async with process(redis_server, "a") as a, process(redis_server, "b") as b, process(redis_server, "c"):
        await until(a, {"b", "c"})
        await until(b, {"a", "c"})


async def test_a_report_ends_with_its_process(redis_server: str) -> None:
    async with process(redis_server, "a") as a:
        async with process(redis_server, "b"):
            await until(a, {"b"})
            await asyncio.sleep(2 * LEASE_S)
            assert await names(a) == {"b"}  # the heartbeat renews it
        assert await until(a, set()) <= LEASE_S + 0.2


async def test_a_process_that_closes_is_gone_at_once(redis_server: str) -> None:
    async with process(redis_server, "a") as a, process(redis_server, "b", lease_s=60) as b:
        await until(a, {"b"})
        await b.close()
        assert await names(a) == set()
        await asyncio.sleep(0.2)
        assert await names(a) == set()  # no later heartbeat writes it again


async def test_reports_are_back_after_redis_has_lost_them(own_redis: RedisServer) -> None:
    async with process(own_redis.url, "a") as a, process(own_redis.url, "b"):
        await until(a, {"b"})
        own_redis.stop()
        with pytest.raises(DependencyAway):
            await a.others()
        own_redis.start()
        await back(a, {"b"})


async def test_a_frozen_redis_delays_one_question_and_no_other(own_redis: RedisServer) -> None:
    async with process(own_redis.url, "a") as a, process(own_redis.url, "b"):
        await until(a, {"b"})
        own_redis.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(DependencyAway):
                await a.others()
            assert time.monotonic() - began < 2 * redis_connection.CALL_TIMEOUT_S + 0.1
            began = time.monotonic()
            with pytest.raises(DependencyAway):
                await a.others()
            assert time.monotonic() - began < 0.02
        finally:
            own_redis.thaw()
        await back(a, {"b"})


async def test_a_process_that_cannot_be_described_keeps_its_heartbeat(
    redis_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    def describe() -> bytes:
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            raise RuntimeError("a bug")
        return json.dumps({"name": "b"}).encode()

    async with process(redis_server, "a") as a, process(redis_server, "b", describe):
        async with asyncio.timeout(5):
            while calls < 6:  # noqa: ASYNC110 - counted by the heartbeat
                await asyncio.sleep(0.01)
        await until(a, {"b"})
    assert len([record for record in caplog.records if "cannot be described" in record.message]) == 1

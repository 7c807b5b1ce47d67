"""One budget counted by several processes: reservations, losses of Redis, a Redis that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from accounts import redis_connection, redis_token_budget
from accounts.redis_connection import SharedRedis
from accounts.redis_token_budget import RedisTokenBudget
from tests.accounts.conftest import Clock, caller
from tests.fakes.written_usage import NOON, Written
from tests.servers import RedisServer


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def written() -> Written:
    return Written()


class Process:
    """A serving process's Redis and budget."""

    def __init__(self, url: str, written: Written, clock: Clock) -> None:
        self.redis = SharedRedis(url)
        self.budget = RedisTokenBudget(self.redis, written, clock)


@asynccontextmanager
async def processes(url: str, number: int, written: Written, clock: Clock) -> AsyncIterator[list[Process]]:
    """Several of them, with heartbeats."""
    made = [Process(url, written, clock) for _ in range(number)]
    for process in made:
        process.redis.start()
    yield made
    for process in made:
        await process.budget.close()
        await process.redis.aclose()


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110  # Redis decides
            await asyncio.sleep(0.02)


async def test_two_processes_count_together(redis_server: str, clock: Clock, written: Written) -> None:
    who = caller(tokens_per_day=1000)
    async with processes(redis_server, 2, written, clock) as (left, right):
        await asyncio.gather(left.budget.open(who), right.budget.open(who))
        for tokens in range(10):
            left.budget.charge(who, tokens)
            right.budget.charge(who, tokens)
        await asyncio.gather(left.budget.close(), right.budget.close())
        assert await left.budget.remaining(who) == await right.budget.remaining(who) == 910


async def test_a_cancelled_reservation_holds_nothing(redis_server: str, clock: Clock, written: Written) -> None:
    who = caller(tokens_per_day=100)
    async with processes(redis_server, 1, written, clock) as (process,):
        await process.budget.open(who)
        for steps in range(8):
            asking = asyncio.create_task(process.budget.reserve(who, 100))
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait({asking})
            if not asking.cancelled() and (reservation := asking.result()) is not None:
                reservation.settle(0)

        async def whole() -> bool:
            return await process.budget.remaining(who) == 100

        await until(whole)


async def test_reservations_of_a_killed_process_end(
    redis_server: str, clock: Clock, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_token_budget, "RESERVATION_S", 0.2)
    who = caller(tokens_per_day=100)
    async with processes(redis_server, 1, written, clock) as (living,):
        killed = Process(redis_server, written, clock)  # its heart does not beat: nothing is renewed
        await killed.budget.open(who)
        assert await killed.budget.reserve(who, 100) is not None
        assert await living.budget.reserve(who, 1) is None

        async def whole() -> bool:
            return await living.budget.remaining(who) == 100

        await until(whole)
        await killed.redis.aclose()


async def test_after_redis_lost_its_data_the_sum_is_what_all_processes_counted(
    own_redis: RedisServer, clock: Clock, written: Written
) -> None:
    """Nothing is forgotten: not what was counted before, nor while it was away, here, there or by an ended process."""
    who = caller(tokens_per_day=1000)
    written.tokens["aaaaaaaa"] = 7  # by processes of this morning
    async with processes(own_redis.url, 3, written, clock) as (one, two, ended):
        for process in (one, two, ended):
            await process.budget.open(who)
        one.budget.charge(who, 100)
        ended.budget.charge(who, 10)
        await ended.budget.close()
        await ended.redis.aclose()
        assert await two.budget.remaining(who) == 1000 - 117
        own_redis.stop()
        one.budget.charge(who, 200)
        two.budget.charge(who, 30)
        assert await one.budget.remaining(who) is not None
        assert await two.budget.remaining(who) == 1000 - 147
        own_redis.start()  # it has lost everything
        expected = 1000 - 347

        async def exact() -> bool:
            return await one.budget.remaining(who) == await two.budget.remaining(who) == expected

        await until(exact)
        newcomer = Process(own_redis.url, written, clock)
        await newcomer.budget.open(who)
        assert await newcomer.budget.remaining(who) == expected
        await newcomer.redis.aclose()


async def test_an_empty_restart_that_no_process_noticed(own_redis: RedisServer, clock: Clock, written: Written) -> None:
    who = caller(tokens_per_day=600)
    async with processes(own_redis.url, 2, written, clock) as (left, right):
        await left.budget.open(who)
        await right.budget.open(who)
        left.budget.charge(who, 640)
        await left.budget.close()
        own_redis.stop()
        own_redis.start()
        assert await left.budget.remaining(who) == -40  # it writes back before it asks

        async def exact() -> bool:
            return await right.budget.remaining(who) == -40

        await until(exact)
        assert await right.budget.reserve(who, 1) is None


async def test_what_ended_processes_counted_is_found_in_the_database_after_a_loss(
    own_redis: RedisServer, clock: Clock, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_connection, "SETTLE_S", 0.2)
    who = caller(tokens_per_day=1000)
    async with processes(own_redis.url, 2, written, clock) as (living, ended):
        await living.budget.open(who)
        await ended.budget.open(who)
        ended.budget.charge(who, 300)  # nothing that lives has seen this
        await ended.budget.close()
        await ended.redis.aclose()
        written.tokens["aaaaaaaa"] = 300
        own_redis.stop()
        own_redis.start()

        async def exact() -> bool:
            return await living.budget.remaining(who) == 700

        await until(exact)
        living.budget.charge(who, 50)
        assert await living.budget.remaining(who) == 650


async def test_opened_while_redis_is_away(own_redis: RedisServer, clock: Clock, written: Written) -> None:
    who = caller(tokens_per_day=1000)
    async with processes(own_redis.url, 2, written, clock) as (left, right):
        own_redis.stop()
        written.tokens["aaaaaaaa"] = 50
        await left.budget.open(who)
        left.budget.charge(who, 300)
        assert await left.budget.remaining(who) == 650
        clock.now += 10
        written.tokens["aaaaaaaa"] = 350  # the other process's turns are in the rows by now
        await right.budget.open(who)
        right.budget.charge(who, 100)
        assert await right.budget.remaining(who) == 550
        own_redis.start()

        async def exact() -> bool:
            return await left.budget.remaining(who) == await right.budget.remaining(who) == 550

        await until(exact)


async def test_a_frozen_redis_costs_one_limit_and_then_nothing(
    own_redis: RedisServer, clock: Clock, written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    who = caller(tokens_per_day=100)
    async with processes(own_redis.url, 1, written, clock) as (process,):
        await process.budget.open(who)
        loop = asyncio.get_running_loop()
        own_redis.freeze()
        began = loop.time()
        assert await process.budget.reserve(who, 10) is not None
        assert loop.time() - began < 0.5
        began = loop.time()
        for _ in range(100):
            reservation = await process.budget.reserve(who, 10)
            if reservation is not None:
                reservation.settle(0)
        assert loop.time() - began < 0.2
        process.budget.charge(who, 60)
        own_redis.thaw()

        async def back() -> bool:
            return not process.redis.breaker.away

        await until(back)
        assert await process.budget.remaining(who) == 30
        lines = [record.message for record in caplog.records if record.name == "yap.dependency"]
        assert [line.partition(" (")[0].partition(" after")[0] for line in lines] == [
            "redis does not answer",
            "redis answers again",
        ]


async def test_what_could_not_be_shared_is_handed_on(own_redis: RedisServer, clock: Clock, written: Written) -> None:
    who = caller(tokens_per_day=1000)
    async with processes(own_redis.url, 1, written, clock) as (ending,):
        await ending.budget.open(who)
        own_redis.freeze()
        ending.budget.charge(who, 110)
        await ending.budget.close()
        unshared = ending.budget.unshared()
        assert [one.tokens for one in unshared] == [110]
    own_redis.thaw()
    async with processes(own_redis.url, 1, written, clock) as (process,):
        process.budget.restore(unshared)
        process.budget.restore(unshared)  # counts once
        await process.budget.open(who)
        assert await process.budget.remaining(who) == 890

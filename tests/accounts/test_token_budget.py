from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from accounts.redis_connection import connect
from accounts.redis_token_budget import RedisTokenBudget
from accounts.token_budget import DAY_S, MemoryTokenBudget, TokenBudget, until_midnight
from tests.accounts.conftest import Clock, caller
from tests.servers import RedisServer

NOON = 1_800_000_000.0 // DAY_S * DAY_S + DAY_S / 2
Seeds = dict[str, int]


class Written:
    """What the database holds, and how often it was asked."""

    def __init__(self) -> None:
        self.tokens: Seeds = {}
        self.asked: list[str] = []

    async def __call__(self, prefix: str, now: float) -> int:
        self.asked.append(prefix)
        await asyncio.sleep(0)
        return self.tokens.get(prefix, 0)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture(params=["memory", "redis"])
async def make(
    request: pytest.FixtureRequest, clock: Clock, written: Written
) -> AsyncIterator[Callable[[], TokenBudget]]:
    """The same contract for both; a second one is the process after a restart."""
    if request.param == "memory":
        yield lambda: MemoryTokenBudget(written, clock)
        return
    async with connect(request.getfixturevalue("redis_server")) as client:
        yield lambda: RedisTokenBudget(client, written, clock)


async def test_counted_to_the_token(make: Callable[[], TokenBudget]) -> None:
    budget, who = make(), caller(tokens_per_day=100)
    await budget.open(who)
    assert await budget.remaining(who) == 100
    for tokens in (33, 33, 33):
        budget.charge(who, tokens)
    assert await budget.remaining(who) == 1
    budget.charge(who, 5)
    assert await budget.remaining(who) == -4
    await budget.close()


async def test_seeded_once_from_what_is_written(make: Callable[[], TokenBudget], written: Written) -> None:
    written.tokens["aaaaaaaa"] = 70
    budget, who = make(), caller(tokens_per_day=100)
    await asyncio.gather(*(budget.open(who) for _ in range(5)))
    assert await budget.remaining(who) == 30
    budget.charge(who, 10)
    written.tokens["aaaaaaaa"] = 80
    written.asked.clear()
    await budget.open(who)
    assert await budget.remaining(who) == 20
    assert written.asked == []
    await budget.close()


async def test_no_budget_is_no_limit_but_is_counted_all_the_same(make: Callable[[], TokenBudget]) -> None:
    budget = make()
    await budget.open(caller())
    budget.charge(caller(), 60)
    assert await budget.remaining(caller()) is None
    assert await budget.remaining(caller(tokens_per_day=100)) == 40  # an admin has just set it
    await budget.close()


async def test_keys_do_not_share(make: Callable[[], TokenBudget]) -> None:
    budget, one, two = make(), caller("aaaaaaaa", tokens_per_day=10), caller("bbbbbbbb", tokens_per_day=10)
    await budget.open(one)
    await budget.open(two)
    budget.charge(one, 10)
    assert (await budget.remaining(one), await budget.remaining(two)) == (0, 10)
    await budget.close()


async def test_midnight_utc_makes_it_whole(make: Callable[[], TokenBudget], clock: Clock, written: Written) -> None:
    written.tokens["aaaaaaaa"] = 70
    budget, who = make(), caller(tokens_per_day=100)
    await budget.open(who)
    clock.now = NOON + DAY_S / 2 - 0.25
    assert budget.retry_in() == 1
    budget.charge(who, 30)
    assert await budget.remaining(who) == 0
    clock.now += 0.25
    assert budget.retry_in() == DAY_S
    assert await budget.remaining(who) == 100
    budget.charge(who, 1)
    assert await budget.remaining(who) == 99
    await budget.open(who)
    assert await budget.remaining(who) == 99  # not seeded again from yesterday's rows
    await budget.close()


async def test_a_restart_goes_on_from_what_was_written(make: Callable[[], TokenBudget], written: Written) -> None:
    who = caller(tokens_per_day=100)
    before = make()
    await before.open(who)
    before.charge(who, 40)
    await before.close()
    written.tokens["aaaaaaaa"] = 40
    after = make()
    await after.open(who)
    assert await after.remaining(who) == 60
    await after.close()


def test_until_midnight_is_never_zero() -> None:
    assert until_midnight(NOON) == DAY_S // 2
    assert until_midnight(DAY_S - 0.001) == 1
    assert until_midnight(DAY_S) == DAY_S


async def test_two_processes_count_together(redis_server: str, clock: Clock, written: Written) -> None:
    who = caller(tokens_per_day=1000)
    async with connect(redis_server) as one, connect(redis_server) as two:
        left, right = RedisTokenBudget(one, written, clock), RedisTokenBudget(two, written, clock)
        await asyncio.gather(left.open(who), right.open(who))
        for tokens in range(10):
            left.charge(who, tokens)
            right.charge(who, tokens)
        await asyncio.gather(left.close(), right.close())
        assert await left.remaining(who) == await right.remaining(who) == 910


async def test_without_redis_it_goes_on_and_nothing_is_lost_or_counted_twice(
    own_redis: RedisServer, clock: Clock, written: Written
) -> None:
    who = caller(tokens_per_day=100)
    async with connect(own_redis.url) as client:
        budget = RedisTokenBudget(client, written, clock)
        await budget.open(who)
        budget.charge(who, 10)
        assert await budget.remaining(who) == 90
        own_redis.stop()
        budget.charge(who, 5)
        budget.charge(who, 5)
        await budget.close()
        assert await budget.remaining(who) == 80
        own_redis.start()  # it has lost everything
        assert await budget.remaining(who) == 80
        budget.charge(who, 1)
        assert await budget.remaining(who) == 79
        other = RedisTokenBudget(client, written, clock)
        await other.open(who)
        assert await other.remaining(who) == 79


async def test_an_addition_whose_answer_was_lost_counts_once(redis_server: str, clock: Clock, written: Written) -> None:
    who = caller(tokens_per_day=100)
    async with connect(redis_server) as client:
        budget = RedisTokenBudget(client, written, clock)
        await budget.open(who)
        tally = budget._tallies[who.prefix]
        tally.sending, tally.number = 10, tally.number + 1
        await budget._add(  # it arrived…
            keys=[f"yap:tokens:{who.prefix}:{tally.day}"], args=[10, tally.total, budget._process, tally.number]
        )
        assert await budget.remaining(who) == 90  # …and is sent again
        budget.charge(who, 1)
        assert await budget.remaining(who) == 89
        await budget.close()

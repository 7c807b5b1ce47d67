from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from accounts.redis_connection import SharedRedis
from accounts.redis_token_budget import RedisTokenBudget
from accounts.token_budget import DAY_S, MemoryTokenBudget, TokenBudget, until_midnight
from tests.accounts.conftest import Clock, caller
from tests.fakes.written_usage import NOON, Written


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.processes)])
async def make(
    request: pytest.FixtureRequest, clock: Clock, written: Written
) -> AsyncIterator[Callable[[], TokenBudget]]:
    """The same contract for both; a second one is the process after a restart."""
    if request.param == "memory":
        yield lambda: MemoryTokenBudget(written, clock)
        return
    url = request.getfixturevalue("redis_server")
    async with AsyncExitStack() as ends:

        def process() -> TokenBudget:
            redis = SharedRedis(url)
            ends.push_async_callback(redis.aclose)
            return RedisTokenBudget(redis, written, clock)

        yield process


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


async def test_a_budget_is_overshot_by_one_turn_at_most_however_many_connections(
    make: Callable[[], TokenBudget],
) -> None:
    budgets, who = [make(), make()], caller(tokens_per_day=100)
    if isinstance(budgets[0], MemoryTokenBudget):
        budgets = [budgets[0], budgets[0]]
    for budget in budgets:
        await budget.open(who)
    asked = await asyncio.gather(*(budgets[number % 2].reserve(who, 30) for number in range(20)))
    granted = [reservation for reservation in asked if reservation is not None]
    assert len(granted) == 4  # 90 were reserved when the fourth asked
    assert await budgets[0].remaining(who) == -20
    for reservation in granted:
        reservation.settle(5)
        reservation.settle(5)  # counts once
    for budget in budgets:
        await budget.close()
    assert await budgets[0].remaining(who) == 80
    assert await budgets[1].remaining(who) == 80
    again = await budgets[1].reserve(who, 200)
    assert again is not None
    assert await budgets[0].reserve(who, 1) is None
    again.settle(0)
    for budget in budgets:
        await budget.close()
    assert await budgets[0].remaining(who) == 80


async def test_a_database_that_does_not_answer_delays_nothing(
    make: Callable[[], TokenBudget], written: Written
) -> None:
    written.away = True
    budget, who = make(), caller(tokens_per_day=100)
    await budget.open(who)
    budget.charge(who, 10)
    assert await budget.remaining(who) == 90
    written.away, written.tokens["aaaaaaaa"] = False, 40
    await budget.open(who)
    assert await budget.remaining(who) in (60, 50)  # 40 rows may or may not hold the 10
    await budget.close()

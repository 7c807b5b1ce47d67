from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress

import pytest
from redis.asyncio import Redis

from accounts.places import MemoryPlaces, Place, Places
from accounts.redis_connection import connect
from accounts.redis_places import RedisPlaces
from tests.accounts.conftest import caller
from tests.servers import RedisServer

Make = Callable[[int], Places]


@pytest.fixture(params=["memory", "redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """The same contract for both."""
    if request.param == "memory":
        yield MemoryPlaces
        return
    made: list[RedisPlaces] = []
    async with connect(request.getfixturevalue("redis_server")) as client:

        def places(maximum: int) -> Places:
            made.append(RedisPlaces(client, maximum))
            return made[-1]

        yield places
        for each in made:
            await each.close()


async def take(
    places: Places, prefix: str = "aaaaaaaa", connections: int | None = None, wait: float = 0.0
) -> Place | None:
    return await places.acquire(caller(prefix, connections=connections), wait)


async def taken(places: Places, prefix: str = "aaaaaaaa", connections: int | None = None) -> Place:
    place = await take(places, prefix, connections, wait=5.0)
    assert place is not None
    return place


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await condition():  # noqa: ASYNC110  # what is waited for is in Redis
            await asyncio.sleep(0.002)


async def test_no_more_than_the_server_has(make: Make) -> None:
    places = make(2)
    first = await taken(places)
    await taken(places, "bbbbbbbb")
    assert await take(places) is None
    assert await places.snapshot() == {"active": 2, "max": 2, "available": 0, "at_capacity": True}
    first.release()
    assert await take(places, wait=5.0) is not None


async def test_releasing_twice_frees_once(make: Make) -> None:
    places = make(2)
    first = await taken(places)
    await taken(places)
    first.release()
    first.release()
    await taken(places)
    assert await take(places) is None


async def test_a_keys_own_limit_and_what_it_is_told(make: Make) -> None:
    places = make(10)
    await taken(places, "aaaaaaaa", 1)
    assert await take(places, "aaaaaaaa", 1) is None
    assert await places.snapshot(caller("aaaaaaaa", connections=1)) == {
        "active": 1, "max": 1, "available": 0, "at_capacity": True,
    }  # fmt: skip
    assert await places.snapshot(caller("bbbbbbbb", connections=1)) == {
        "active": 1, "max": 10, "available": 9, "at_capacity": False,
    }  # fmt: skip
    assert await take(places, "bbbbbbbb", 1) is not None


async def test_a_changed_limit_governs_the_next_connection(make: Make) -> None:
    places = make(10)
    await taken(places, connections=1)
    assert await take(places, connections=1) is None
    await taken(places, connections=2)
    assert await take(places, connections=1) is None
    await taken(places, connections=None)


async def test_who_waits_gets_what_falls_free(make: Make) -> None:
    places = make(1)
    first = await taken(places)
    waiting = asyncio.create_task(take(places, wait=5.0))
    await asyncio.sleep(0)
    first.release()
    assert await waiting is not None


async def test_who_waits_in_vain_takes_nothing(make: Make) -> None:
    places = make(1)
    first = await taken(places)
    assert await take(places, wait=0.01) is None
    first.release()
    second = await taken(places)
    second.release()
    await until(lambda: _active(places, 0))


async def test_a_cancelled_wait_takes_nothing(make: Make) -> None:
    places = make(1)
    first = await taken(places)
    for steps in range(6):  # cancelled at every stage of asking
        waiting = asyncio.create_task(take(places, wait=5.0))
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
    first.release()
    await until(lambda: _active(places, 0))
    await taken(places)


async def test_cancelled_while_the_only_place_is_being_given(make: Make) -> None:
    places = make(1)
    for steps in range(6):
        asking = asyncio.create_task(take(places, wait=5.0))
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            place = await asking
            if place is not None:
                place.release()
    await until(lambda: _active(places, 0))


async def test_many_at_once_never_go_over(make: Make) -> None:
    places = make(5)
    highest = active = 0

    async def visit(number: int) -> None:
        nonlocal highest, active
        place = await taken(places, f"key{number % 3:05}", 3)
        active += 1
        highest = max(highest, active)
        await asyncio.sleep(0)
        active -= 1
        place.release()

    await asyncio.gather(*(visit(number) for number in range(40)))
    assert 0 < highest <= 5
    await until(lambda: _active(places, 0))


async def test_in_memory_the_first_to_wait_is_the_first_served_but_holds_up_nobody_else() -> None:
    places = MemoryPlaces(2)
    mine, other = await taken(places, "aaaaaaaa", 1), await taken(places, "bbbbbbbb")
    order: list[str] = []

    async def wait_for(name: str, prefix: str, connections: int | None) -> None:
        await taken(places, prefix, connections)
        order.append(name)

    waiting = [
        asyncio.create_task(wait_for("own limit", "aaaaaaaa", 1)),
        asyncio.create_task(wait_for("first", "cccccccc", None)),
        asyncio.create_task(wait_for("second", "dddddddd", None)),
    ]
    await asyncio.sleep(0)
    other.release()
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert order == ["first"]
    mine.release()
    await asyncio.wait(waiting[:1])
    assert order == ["first", "own limit"]
    waiting[2].cancel()
    with suppress(asyncio.CancelledError):
        await waiting[2]


async def test_two_processes_share_the_places(redis_server: str) -> None:
    async with connect(redis_server) as one, connect(redis_server) as two:
        left, right = RedisPlaces(one, 2), RedisPlaces(two, 2)
        await taken(left, "aaaaaaaa", 1)
        assert await take(right, "aaaaaaaa", 1) is None
        await taken(right, "bbbbbbbb")
        assert await take(left, "cccccccc") is None
        await left.close()
        await taken(right, "cccccccc")
        await right.close()


async def test_what_a_killed_process_held_expires(redis_server: str) -> None:
    async with connect(redis_server) as one, connect(redis_server) as two:
        killed, living = RedisPlaces(one, 1, lease_s=0.1), RedisPlaces(two, 1)
        await taken(killed)
        assert killed._heart is not None
        killed._heart.cancel()  # a killed process renews nothing and gives nothing back
        await taken(living)
        await living.close()


async def test_what_lives_is_renewed(redis_server: str) -> None:
    async with connect(redis_server) as client:
        places = RedisPlaces(client, 1, lease_s=0.3)
        await taken(places)

        async def ends() -> list[float]:
            return [end for _, end in await client.zrange("{yap}:places", 0, -1, withscores=True)]

        first = await ends()

        async def renewed() -> bool:
            return await ends() > first

        await until(renewed)
        await places.close()
        assert await ends() == []


async def test_without_redis_the_process_counts_for_itself_and_tells_it_afterwards(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(own_redis.url) as client:
        places = RedisPlaces(client, 2, lease_s=0.15)
        await taken(places, "aaaaaaaa", 1)
        own_redis.stop()
        with caplog.at_level(logging.WARNING):
            assert await take(places, "aaaaaaaa", 1) is None
            second = await taken(places, "bbbbbbbb")
            assert await take(places, "cccccccc") is None
        assert caplog.text.count("does not answer") == 1
        assert (await places.snapshot())["active"] == 2
        own_redis.start()  # it has lost everything
        async with aclosing(Redis.from_url(own_redis.url)) as look:
            await until(lambda: _members(look, 2))
            second.release()
            await until(lambda: _members(look, 1))
        await places.close()


async def _active(places: Places, number: int) -> bool:
    return (await places.snapshot())["active"] == number


async def _members(client: Redis, number: int) -> bool:
    return int(await client.zcard("{yap}:places")) == number

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress

import pytest
from redis.asyncio import Redis

from accounts.connection_slots import ConnectionSlot, ConnectionSlots, MemoryConnectionSlots
from accounts.redis_connection import connect
from accounts.redis_connection_slots import RedisConnectionSlots
from tests.accounts.conftest import caller
from tests.servers import RedisServer

Make = Callable[[int], ConnectionSlots]


@pytest.fixture(params=["memory", "redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """The same contract for both."""
    if request.param == "memory":
        yield MemoryConnectionSlots
        return
    made: list[RedisConnectionSlots] = []
    async with connect(request.getfixturevalue("redis_server")) as client:

        def slots(maximum: int) -> ConnectionSlots:
            made.append(RedisConnectionSlots(client, maximum))
            return made[-1]

        yield slots
        for each in made:
            await each.close()


async def take(
    slots: ConnectionSlots, prefix: str = "aaaaaaaa", connections: int | None = None, wait: float = 0.0
) -> ConnectionSlot | None:
    return await slots.acquire(caller(prefix, connections=connections), wait)


async def taken(slots: ConnectionSlots, prefix: str = "aaaaaaaa", connections: int | None = None) -> ConnectionSlot:
    slot = await take(slots, prefix, connections, wait=5.0)
    assert slot is not None
    return slot


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await condition():  # noqa: ASYNC110  # what is waited for is in Redis
            await asyncio.sleep(0.002)


async def test_no_more_than_the_server_has(make: Make) -> None:
    slots = make(2)
    first = await taken(slots)
    await taken(slots, "bbbbbbbb")
    assert await take(slots) is None
    assert await slots.snapshot() == {"active": 2, "max": 2, "available": 0, "at_capacity": True}
    first.release()
    assert await take(slots, wait=5.0) is not None


async def test_releasing_twice_frees_once(make: Make) -> None:
    slots = make(2)
    first = await taken(slots)
    await taken(slots)
    first.release()
    first.release()
    await taken(slots)
    assert await take(slots) is None


async def test_a_keys_own_limit_and_what_it_is_told(make: Make) -> None:
    slots = make(10)
    await taken(slots, "aaaaaaaa", 1)
    assert await take(slots, "aaaaaaaa", 1) is None
    assert await slots.snapshot(caller("aaaaaaaa", connections=1)) == {
        "active": 1, "max": 1, "available": 0, "at_capacity": True,
    }  # fmt: skip
    assert await slots.snapshot(caller("bbbbbbbb", connections=1)) == {
        "active": 1, "max": 10, "available": 9, "at_capacity": False,
    }  # fmt: skip
    assert await take(slots, "bbbbbbbb", 1) is not None


async def test_a_changed_limit_governs_the_next_connection(make: Make) -> None:
    slots = make(10)
    await taken(slots, connections=1)
    assert await take(slots, connections=1) is None
    await taken(slots, connections=2)
    assert await take(slots, connections=1) is None
    await taken(slots, connections=None)


async def test_who_waits_gets_what_falls_free(make: Make) -> None:
    slots = make(1)
    first = await taken(slots)
    waiting = asyncio.create_task(take(slots, wait=5.0))
    await asyncio.sleep(0)
    first.release()
    assert await waiting is not None


async def test_who_waits_in_vain_takes_nothing(make: Make) -> None:
    slots = make(1)
    first = await taken(slots)
    assert await take(slots, wait=0.01) is None
    first.release()
    second = await taken(slots)
    second.release()
    await until(lambda: _active(slots, 0))


async def test_a_cancelled_wait_takes_nothing(make: Make) -> None:
    slots = make(1)
    first = await taken(slots)
    for steps in range(6):  # cancelled at every stage of asking
        waiting = asyncio.create_task(take(slots, wait=5.0))
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
    first.release()
    await until(lambda: _active(slots, 0))
    await taken(slots)


async def test_cancelled_while_the_only_place_is_being_given(make: Make) -> None:
    slots = make(1)
    for steps in range(6):
        asking = asyncio.create_task(take(slots, wait=5.0))
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            slot = await asking
            if slot is not None:
                slot.release()
    await until(lambda: _active(slots, 0))


async def test_many_at_once_never_go_over(make: Make) -> None:
    slots = make(5)
    highest = active = 0

    async def visit(number: int) -> None:
        nonlocal highest, active
        slot = await taken(slots, f"key{number % 3:05}", 3)
        active += 1
        highest = max(highest, active)
        await asyncio.sleep(0)
        active -= 1
        slot.release()

    await asyncio.gather(*(visit(number) for number in range(40)))
    assert 0 < highest <= 5
    await until(lambda: _active(slots, 0))


async def test_in_memory_the_first_to_wait_is_the_first_served_but_holds_up_nobody_else() -> None:
    slots = MemoryConnectionSlots(2)
    mine, other = await taken(slots, "aaaaaaaa", 1), await taken(slots, "bbbbbbbb")
    order: list[str] = []

    async def wait_for(name: str, prefix: str, connections: int | None) -> None:
        await taken(slots, prefix, connections)
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
        left, right = RedisConnectionSlots(one, 2), RedisConnectionSlots(two, 2)
        await taken(left, "aaaaaaaa", 1)
        assert await take(right, "aaaaaaaa", 1) is None
        await taken(right, "bbbbbbbb")
        assert await take(left, "cccccccc") is None
        await left.close()
        await taken(right, "cccccccc")
        await right.close()


async def test_what_a_killed_process_held_expires(redis_server: str) -> None:
    async with connect(redis_server) as one, connect(redis_server) as two:
        killed, living = RedisConnectionSlots(one, 1, lease_s=0.1), RedisConnectionSlots(two, 1)
        await taken(killed)
        assert killed._heart is not None
        killed._heart.cancel()  # a killed process renews nothing and gives nothing back
        await taken(living)
        await living.close()


async def test_what_lives_is_renewed(redis_server: str) -> None:
    async with connect(redis_server) as client:
        slots = RedisConnectionSlots(client, 1, lease_s=0.3)
        await taken(slots)

        async def ends() -> list[float]:
            return [end for _, end in await client.zrange("{yap}:slots", 0, -1, withscores=True)]

        first = await ends()

        async def renewed() -> bool:
            return await ends() > first

        await until(renewed)
        await slots.close()
        assert await ends() == []


async def test_without_redis_the_process_counts_for_itself_and_tells_it_afterwards(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(own_redis.url) as client:
        slots = RedisConnectionSlots(client, 2, lease_s=0.15)
        await taken(slots, "aaaaaaaa", 1)
        own_redis.stop()
        with caplog.at_level(logging.WARNING):
            assert await take(slots, "aaaaaaaa", 1) is None
            second = await taken(slots, "bbbbbbbb")
            assert await take(slots, "cccccccc") is None
        assert caplog.text.count("does not answer") == 1
        assert (await slots.snapshot())["active"] == 2
        own_redis.start()  # it has lost everything
        async with aclosing(Redis.from_url(own_redis.url)) as look:
            await until(lambda: _members(look, 2))
            second.release()
            await until(lambda: _members(look, 1))
        await slots.close()


async def _active(slots: ConnectionSlots, number: int) -> bool:
    return (await slots.snapshot())["active"] == number


async def _members(client: Redis, number: int) -> bool:
    return int(await client.zcard("{yap}:slots")) == number

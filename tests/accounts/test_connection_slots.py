from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress

import pytest
from redis.asyncio import Redis

from accounts import redis_connection, redis_connection_slots
from accounts.connection_slots import ConnectionSlot, ConnectionSlots, MemoryConnectionSlots
from accounts.redis_connection import SharedRedis
from accounts.redis_connection_slots import RedisConnectionSlots
from tests.accounts.conftest import caller
from tests.servers import RedisServer

Make = Callable[[int], ConnectionSlots]


@asynccontextmanager
async def process(url: str) -> AsyncIterator[SharedRedis]:
    """The Redis of one serving process."""
    redis = SharedRedis(url)
    redis.start()
    yield redis
    await redis.aclose()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.processes)])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """The same contract for both."""
    if request.param == "memory":
        yield MemoryConnectionSlots
        return
    async with process(request.getfixturevalue("redis_server")) as redis:
        made: list[RedisConnectionSlots] = []

        def slots(maximum: int) -> ConnectionSlots:
            made.append(RedisConnectionSlots(redis, maximum))
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
    async with process(redis_server) as one, process(redis_server) as two:
        left, right = RedisConnectionSlots(one, 2), RedisConnectionSlots(two, 2)
        await taken(left, "aaaaaaaa", 1)
        assert await take(right, "aaaaaaaa", 1) is None
        await taken(right, "bbbbbbbb")
        assert await take(left, "cccccccc") is None
        await left.close()
        await taken(right, "cccccccc")
        await right.close()


async def test_what_a_killed_process_held_expires(redis_server: str) -> None:
    async with process(redis_server) as two:
        one = SharedRedis(redis_server)  # its heart does not beat: nothing is renewed
        killed, living = RedisConnectionSlots(one, 1, lease_s=0.1), RedisConnectionSlots(two, 1)
        await taken(killed)
        await taken(living)
        await living.close()
        await one.aclose()


async def test_what_lives_is_renewed(redis_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_connection, "RETRY_S", 0.05)
    async with process(redis_server) as redis, aclosing(Redis.from_url(redis_server)) as look:
        slots = RedisConnectionSlots(redis, 1, lease_s=0.3)
        await taken(slots)

        async def ends() -> list[float]:
            return [end for _, end in await look.zrange("{yap}:slots", 0, -1, withscores=True)]

        first = await ends()

        async def renewed() -> bool:
            return await ends() > first

        await until(renewed)
        await slots.close()
        assert await ends() == []


async def test_without_redis_the_process_counts_for_itself_and_tells_it_afterwards(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with process(own_redis.url) as redis, aclosing(Redis.from_url(own_redis.url)) as look:
        slots = RedisConnectionSlots(redis, 2)
        await taken(slots, "aaaaaaaa", 1)
        own_redis.stop()
        with caplog.at_level(logging.WARNING):
            assert await take(slots, "aaaaaaaa", 1) is None
            second = await taken(slots, "bbbbbbbb")
            assert await take(slots, "cccccccc") is None
        assert caplog.text.count("does not answer") == 1
        assert (await slots.snapshot())["active"] == 2
        own_redis.start()  # it has lost everything
        await until(lambda: _members(look, 2))
        second.release()
        await until(lambda: _members(look, 1))
        await slots.close()


async def test_a_full_server_stays_full_when_redis_comes_back_empty(own_redis: RedisServer) -> None:
    """Neither the process that holds the slots nor another one hands any out, however early it asks."""
    async with process(own_redis.url) as one, process(own_redis.url) as two:
        full, other = RedisConnectionSlots(one, 3), RedisConnectionSlots(two, 3)
        for _ in range(3):
            await taken(full)
        await until(lambda: _sees(other, 3))
        own_redis.stop()
        own_redis.start()
        asked = await asyncio.gather(*(take(slots, wait=0.3) for slots in (full, other) * 6))
        assert asked == [None] * 12
        assert (await other.snapshot())["active"] == 3
        await full.close()
        await taken(other)
        await other.close()


async def test_more_slots_than_there_are_is_said_and_none_is_given_until_they_fit(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with process(own_redis.url) as one, process(own_redis.url) as two:
        left, right = RedisConnectionSlots(one, 2), RedisConnectionSlots(two, 2)
        await taken(left)
        await taken(left)
        await until(lambda: _sees(right, 2))
        own_redis.stop()
        assert await take(right) is None  # a short absence changes nothing
        monkeypatch.setattr(redis_connection_slots, "SETTLE_S", 0.0)
        theirs = [await taken(right), await taken(right)]  # each process by what it holds itself
        own_redis.start()
        await until(lambda: _over(left, right))
        assert [record.message for record in caplog.records if "until they fit" in record.message] == [
            "slots: 4 connections hold 2 slots: no new ones until they fit"
        ] * 2
        assert await take(left) is await take(right) is None
        assert await left.snapshot() == {"active": 4, "max": 2, "available": 0, "at_capacity": True}
        theirs.pop().release()
        theirs.pop().release()
        assert await take(left, wait=0.1) is None
        await until(lambda: _fits(left, right))
        await left.close()
        await taken(right)
        await right.close()


async def test_a_frozen_redis_delays_one_admission_and_no_other(own_redis: RedisServer) -> None:
    async with process(own_redis.url) as redis, aclosing(Redis.from_url(own_redis.url)) as look:
        slots = RedisConnectionSlots(redis, 50)
        held = [await taken(slots)]
        own_redis.freeze()
        loop = asyncio.get_running_loop()
        began = loop.time()
        held.append(await taken(slots))
        assert loop.time() - began < 0.3
        began = loop.time()
        held += [await taken(slots) for _ in range(20)]
        for slot in held[:15]:
            slot.release()
        assert loop.time() - began < 0.1
        own_redis.thaw()
        await until(lambda: _members(look, 7))  # also what Redis granted without anybody waiting for it
        await asyncio.sleep(0.3)
        assert await _members(look, 7)
        await slots.close()


async def _active(slots: ConnectionSlots, number: int) -> bool:
    return (await slots.snapshot())["active"] == number


async def _members(client: Redis, number: int) -> bool:
    return int(await client.zcard("{yap}:slots")) == number


async def _sees(slots: ConnectionSlots, number: int) -> bool:
    """Whether the last heartbeat has told this process of the others' slots."""
    assert isinstance(slots, RedisConnectionSlots)
    return slots._others == number


async def _over(*all_slots: ConnectionSlots) -> bool:
    return all(slots.over_granted for slots in all_slots)


async def _fits(*all_slots: ConnectionSlots) -> bool:
    return not any(slots.over_granted for slots in all_slots)

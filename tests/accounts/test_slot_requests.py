from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from accounts.redis_connection import SharedRedis
from accounts.redis_connection_slots import RedisConnectionSlots
from accounts.slot_requests import BATCH, SlotRequests
from tests.accounts.conftest import caller


class Store:
    """Grants while there is room; answers when the test lets it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.asked: list[list[int]] = []
        self.left: list[int] = []
        self.answering = asyncio.Event()
        self.answering.set()
        self.requests = SlotRequests(self._ask, self.left.append)

    async def _ask(self, subjects: Sequence[int]) -> list[bool]:
        self.asked.append(list(subjects))
        await self.answering.wait()
        granted = []
        for _ in subjects:
            granted.append(self.room > 0)
            self.room -= granted[-1]
        return granted


async def test_many_at_once_are_few_questions_in_order() -> None:
    store = Store(300)
    answers = await asyncio.gather(*(store.requests.wait(number, 0.0) for number in range(400)))
    assert answers == [True] * 300 + [False] * 100
    assert len(store.asked) == -(-400 // BATCH)
    assert [number for batch in store.asked for number in batch] == list(range(400))


async def test_a_request_without_patience_is_asked_about_once() -> None:
    store = Store(0)
    assert await store.requests.wait(1, 0.0) is False
    assert store.asked == [[1]]


async def test_what_falls_free_goes_to_the_first_that_waits() -> None:
    store = Store(0)
    first = asyncio.create_task(store.requests.wait(1, 5.0))
    second = asyncio.create_task(store.requests.wait(2, 0.05))
    await asyncio.sleep(0.01)
    store.room = 1
    store.requests.changed()
    assert await first is True
    assert await second is False


async def test_who_leaves_meanwhile_leaves_nothing_behind() -> None:
    store = Store(2)
    store.answering.clear()
    leaving = asyncio.create_task(store.requests.wait(1, 5.0))
    staying = asyncio.create_task(store.requests.wait(2, 5.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving  # at once, although the question has no answer yet
    store.answering.set()
    assert await staying is True
    assert store.left == [1]


async def test_a_caller_that_is_cancelled_in_the_step_of_its_grant_gives_it_back() -> None:
    store = Store(1)
    waiting = asyncio.create_task(store.requests.wait(1, 5.0))
    while store.room:  # noqa: ASYNC110 - the very step of the grant is meant
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert store.left == [1]


async def test_a_question_that_fails_fails_for_every_caller_and_the_next_is_asked() -> None:
    calls = 0

    async def ask(subjects: Sequence[int]) -> list[bool]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("a bug")
        return [True for _ in subjects]

    requests: SlotRequests[int] = SlotRequests(ask, lambda _: None)
    results = await asyncio.gather(requests.wait(1, 5.0), requests.wait(2, 5.0), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError, RuntimeError]
    assert await requests.wait(3, 5.0) is True


async def test_hundreds_at_once_in_two_processes_get_exactly_what_there_is(redis_server: str) -> None:
    clients = [SharedRedis(redis_server) for _ in range(2)]
    both = [RedisConnectionSlots(redis, 40) for redis in clients]
    for redis in clients:
        redis.start()
    answers = await asyncio.gather(
        *(slots.acquire(caller(f"key{number % 7:05}", connections=20), 0.5) for number in range(300) for slots in both)
    )
    granted = [slot for slot in answers if slot is not None]
    assert len(granted) == 40
    assert not any(redis.breaker.away for redis in clients)
    for slots, redis in zip(both, clients, strict=True):
        await slots.close()
        await redis.aclose()

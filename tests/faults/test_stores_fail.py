"""Redis and PostgreSQL freeze, vanish and come back empty while conversations stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

import pytest
import pytest_asyncio

from tests.faults.conftest import Row
from tests.faults.world import EXACT_WITHIN_S, SLOTS, Answer, Held, Pinger, Talker, World, connect
from tests.server import YapServer

pytestmark = pytest.mark.faults

OUTAGE_S = 6.0
WAITED_S = 3.0
"""A stream that stands still for so long, in an outage of ``OUTAGE_S``, has waited for a store. Each server has its own
cores: the threads of two engines on the same cores wait for each other, for seconds, without any fault."""
_new = count()


@dataclass
class Streams:
    """Conversations during a fault."""

    talkers: list[Talker]
    pinger: Pinger
    control_gap_s: float

    @property
    def longest_gap_s(self) -> float:
        return max(talker.longest_gap_s for talker in self.talkers)

    @property
    def slack_s(self) -> float:
        """What a busy machine adds to every time that is measured here."""
        return self.pinger.lag_s + self.control_gap_s / 4


@asynccontextmanager
async def streaming(world: World) -> AsyncIterator[Streams]:
    """Four talkers and an idle connection; gaps are measured from the moment the block begins."""
    keys = world.keys
    talkers = [
        Talker(world.a, world.env),
        Talker(world.a, keys["plain0"]),
        Talker(world.a, keys["budget0"]),
        Talker(world.b, keys["budget1"]),
    ]
    pinger = Pinger(world.a, keys["budget2"])
    clients: list[Talker | Pinger] = [*talkers, pinger]
    tasks = [asyncio.create_task(each.run()) for each in clients]
    await asyncio.sleep(3.0)  # without a fault: what is usual here now
    streams = Streams(talkers, pinger, max(talker.longest_gap_s for talker in talkers))
    for each in clients:
        each.forget()
    try:
        yield streams
    finally:
        for each in clients:
            each.stop()
        for task in tasks:
            await asyncio.wait_for(task, 60)
        world.count(talkers)


def budgeted(world: World) -> list[str]:
    """Prefixes of the keys with a budget that talk."""
    return [world.keys[name].split("_")[1] for name in ("budget0", "budget1")]


def new_key(world: World) -> str:
    """A key that no process has met."""
    return world.keys[f"new{next(_new) % 16}"]


@pytest_asyncio.fixture(autouse=True)
async def _healed(world: World) -> AsyncIterator[None]:
    yield
    for store in (world.redis, world.postgres):
        store.thaw()
        if not store.running:
            store.start()
    await whole(world)


def went_on(streams: Streams) -> None:
    """Streams have not noticed."""
    usual = max(WAITED_S, 2 * streams.control_gap_s)
    assert streams.longest_gap_s < usual, (streams.longest_gap_s, streams.control_gap_s)
    assert [talker.errors for talker in streams.talkers] == [[]] * 4
    assert streams.pinger.longest_s < 0.5 + streams.slack_s


def one_line_each_way(world: World, name: str, since: dict[YapServer, int]) -> None:
    """One log line when the dependency went, one when it was back, in each process."""
    for server in world.servers:
        lines = [line.split(" (")[0].split(" after")[0] for line in world.log_lines(server, since[server])]
        assert [line for line in lines if line.startswith(name)] == [
            f"{name} does not answer",
            f"{name} answers again",
        ], lines
        text = server.log.read_text(errors="replace")[since[server] :]
        assert "Traceback" not in text, text


async def degraded(world: World, name: str) -> float:
    """Seconds until both servers say so at ``/readyz``, still with 200."""

    async def said() -> bool:
        answers = [await asyncio.to_thread(server.http, "/readyz", key=None) for server in world.servers]
        return all(status == 200 and name in body.get("degraded", []) for status, body in answers)

    return await world.until(said, 5)


async def whole(world: World) -> float:
    """Seconds until neither says that anything is degraded."""

    async def said() -> bool:
        answers = [await asyncio.to_thread(server.http, "/readyz", key=None) for server in world.servers]
        return all(body == {"status": "ready"} for _, body in answers)

    return await world.until(said, 10)


async def test_without_a_fault_everything_is_exact(world: World, asgi_server: str, report: list[Row]) -> None:
    async with streaming(world) as streams:
        await asyncio.sleep(2)
    took = await world.exact(budgeted(world))
    report.append(Row(asgi_server, "none", "streams", 1000 * streams.longest_gap_s, took))


async def test_redis_frozen(world: World, asgi_server: str, report: list[Row]) -> None:
    known = world.keys["plain1"]
    for server in world.servers:
        assert (await connect(server, known)).code == "pong"
    since = {server: world.log_size(server) for server in world.servers}
    answers: dict[str, Answer] = {}
    async with streaming(world) as streams:
        world.redis.freeze()
        frozen = time.monotonic()
        for server, name in ((world.a, "a"), (world.b, "b")):
            answers[f"TEXT_API_KEY {name}"] = await connect(server, world.env)
            answers[f"known {name}"] = await connect(server, known)
            answers[f"new {name}"] = await connect(server, new_key(world))
        await degraded(world, "redis")
        began = time.monotonic()
        assert (await asyncio.to_thread(world.a.http, "/status"))[0] == 200
        status_s = time.monotonic() - began
        await asyncio.sleep(max(0.0, OUTAGE_S - (time.monotonic() - frozen)))
        gap = streams.longest_gap_s
        ack = max(talker.longest_ack_s for talker in streams.talkers)
        went_on(streams)
        world.redis.thaw()
        thawed = time.monotonic()
    slack = streams.slack_s
    assert {answer.code for answer in answers.values()} == {"pong"}, answers
    for name, answer in answers.items():
        limit = 0.3 if name.startswith("TEXT") else 0.5 if name.startswith("known") else 3.5
        assert answer.seconds < limit + slack, (name, answer)
    assert status_s < 1.0 + slack
    talked_on_s = time.monotonic() - thawed
    took = await world.exact(budgeted(world)) + talked_on_s
    await whole(world)
    one_line_each_way(world, "redis", since)
    slowest = max(answer.seconds for answer in answers.values())
    saw = f"streams; connect at most {1000 * slowest:.0f} ms, ack {1000 * ack:.0f} ms"
    report.append(Row(asgi_server, f"Redis frozen {OUTAGE_S:g} s", saw, 1000 * gap, took))


async def test_redis_killed_and_restarted_empty(world: World, asgi_server: str, report: list[Row]) -> None:
    since = {server: world.log_size(server) for server in world.servers}
    async with streaming(world) as streams:
        world.redis.stop()
        slowest = 0.0
        for server in world.servers:
            for key in (world.env, world.keys["plain1"], new_key(world)):
                answer = await connect(server, key)
                assert answer.code == "pong", answer
                slowest = max(slowest, answer.seconds)
        await degraded(world, "redis")
        await asyncio.sleep(OUTAGE_S)
        gap = streams.longest_gap_s
        went_on(streams)
        world.redis.start()
        back = time.monotonic()
        await whole(world)
    took = time.monotonic() - back + await world.exact(budgeted(world))
    one_line_each_way(world, "redis", since)
    saw = f"streams; connect at most {1000 * slowest:.0f} ms"
    report.append(Row(asgi_server, "Redis killed, back empty", saw, 1000 * gap, took))


async def test_slots_after_redis_came_back_empty(world: World, asgi_server: str, report: list[Row]) -> None:
    held, key = Held(), world.keys["plain2"]
    try:
        # After the outage of the test before, a process still counts the slots that others held, for some seconds.
        for _ in range(SLOTS - 1):
            assert (await held.add_within(world.a, key, EXACT_WITHIN_S)).code == "pong"
        assert (await held.add(world.b, world.keys["single0"])).code == "pong"
        await asyncio.sleep(1.5)  # each process knows what the other holds
        world.redis.stop()
        world.redis.start()
        asked = await asyncio.gather(
            *(held.add((world.a, world.b)[number % 2], key) for number in range(12)),
            held.add(world.a, world.keys["single0"]),
        )
        assert {answer.code for answer in asked} == {"server_at_capacity"}
        assert held.open == SLOTS
        await world.until(lambda: _active(world.a, SLOTS), 5)  # once its breaker has closed
        world.redis.stop()
        await asyncio.sleep(3.5)  # in the first seconds the others' slots are counted as they were
        over = [await held.add(world.b, key) for _ in range(3)]  # each process by its own count
        assert {answer.code for answer in over} == {"pong"}
        world.redis.start()
        back = time.monotonic()

        async def said() -> bool:
            answers = [await asyncio.to_thread(server.http, "/readyz", key=None) for server in world.servers]
            return all("slots" in body.get("degraded", []) for _, body in answers)

        took = await world.until(said, 5)
        assert time.monotonic() - back < 5.5
        for server in world.servers:
            assert (await connect(server, world.env)).code == "server_at_capacity"
            assert "no new ones until they fit" in server.log.read_text()
        report.append(Row(asgi_server, "Redis back empty, 15 connections of 12", "server_at_capacity", 0, took))
    finally:
        await held.close()
    await world.exact(budgeted(world))
    await whole(world)

    async def admitted() -> bool:
        return (await connect(world.b, world.env)).code == "pong"

    await world.until(admitted, EXACT_WITHIN_S)


async def _active(server: YapServer, number: int) -> bool:
    status = await asyncio.to_thread(server.status)
    return bool(status["connections"]["active"] == number)


async def test_a_used_up_budget_stays_used_up(world: World, asgi_server: str, report: list[Row]) -> None:
    key = world.keys["small0"]
    prefix = key.split("_")[1]
    first, second = Talker(world.a, key), Talker(world.b, key)
    try:
        await asyncio.wait_for(first.run(), 60)
        assert first.errors == ["token_budget_exhausted"]
        world.redis.stop()
        world.redis.start()
        await asyncio.sleep(1.5)  # a's heartbeat has written its counter back
        await asyncio.wait_for(second.run(), 60)
        assert second.errors == ["token_budget_exhausted"]
        assert second.turns == 0
    finally:
        world.count([first, second])
    took = await world.exact([prefix])
    report.append(Row(asgi_server, "Redis back empty, budget used up on a", "token_budget_exhausted on b", 0, took))
    await whole(world)


async def test_postgres_frozen(world: World, asgi_server: str, report: list[Row]) -> None:
    known = world.keys["plain1"]
    for server in world.servers:
        assert (await connect(server, known)).code == "pong"
    since = {server: world.log_size(server) for server in world.servers}
    slowest: dict[str, float] = {"TEXT_API_KEY": 0.0, "known": 0.0, "new": 0.0}
    async with streaming(world) as streams:
        world.postgres.freeze()
        frozen = time.monotonic()
        unknown = asyncio.create_task(connect(world.a, new_key(world)))
        while time.monotonic() - frozen < OUTAGE_S:
            for server in world.servers:
                for name, key in (("TEXT_API_KEY", world.env), ("known", known)):
                    answer = await connect(server, key)
                    assert answer.code == "pong", (name, answer)
                    slowest[name] = max(slowest[name], answer.seconds)
            await asyncio.sleep(0.3)
        answer = await unknown
        assert answer.code == "server_not_ready"
        again = await connect(world.b, new_key(world))
        assert again.code == "server_not_ready"
        slowest["new"] = max(answer.seconds, again.seconds)
        await degraded(world, "database")
        gap = streams.longest_gap_s
        went_on(streams)
        world.postgres.thaw()
        thawed = time.monotonic()
        await whole(world)
        for server in world.servers:
            assert (await connect(server, new_key(world))).code == "pong"
    slack = streams.slack_s
    for name, limit in (("TEXT_API_KEY", 0.3), ("known", 0.5), ("new", 3.5)):
        assert slowest[name] < limit + slack, (name, slowest[name])
    took = await world.exact(budgeted(world)) + time.monotonic() - thawed
    one_line_each_way(world, "database", since)
    saw = "streams; connect " + ", ".join(f"{name} {1000 * s:.0f} ms" for name, s in slowest.items())
    report.append(Row(asgi_server, f"PostgreSQL frozen {OUTAGE_S:g} s", saw, 1000 * gap, took))


async def test_postgres_killed_and_restarted(world: World, asgi_server: str, report: list[Row]) -> None:
    since = {server: world.log_size(server) for server in world.servers}
    live = Held()
    revoked = world.keys["plain3"]
    try:
        assert (await live.add(world.b, revoked)).code == "pong"
        async with streaming(world) as streams:
            world.postgres.kill()
            for server in world.servers:
                assert (await connect(server, world.env)).code == "pong"
            assert (await connect(world.b, revoked)).code == "pong"
            assert (await connect(world.a, new_key(world))).code == "server_not_ready"
            await degraded(world, "database")
            await asyncio.sleep(OUTAGE_S)
            gap = streams.longest_gap_s
            went_on(streams)
            world.postgres.start()
            back = time.monotonic()
            await whole(world)
            for server in world.servers:
                answer = await connect(server, new_key(world))
                assert answer.code == "pong", answer
        took = time.monotonic() - back + await world.exact(budgeted(world), connections=1)
        one_line_each_way(world, "database", since)
        await asyncio.to_thread(world.a.manage, "revokekey", revoked.split("_")[1])
        gone = time.monotonic()
        await world.exact(budgeted(world), within_s=2.5)  # its connection on b is closed, and its slot free
        assert (await connect(world.b, revoked)).code == "authentication_failed"
        closed = time.monotonic() - gone
        saw = f"streams; never-seen keys server_not_ready, then admitted; revoked key closed after {closed:.1f} s"
        report.append(Row(asgi_server, "PostgreSQL killed, restarted", saw, 1000 * gap, took))
    finally:
        await live.close()

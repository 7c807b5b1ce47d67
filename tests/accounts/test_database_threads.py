"""Time limits and the breaker, on a real PostgreSQL that is restarted, stopped and frozen."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from django.db import OperationalError, connections
from pytest_django import DjangoDbBlocker

from accounts.breaker import DependencyAway
from accounts.caller_lookup import CallerLookup
from accounts.callers import Caller
from accounts.database_threads import DatabaseThreads, database_breaker
from tests.accounts.conftest import DEFAULTS, _default_database
from tests.servers import PostgresCluster

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def _cluster() -> Iterator[tuple[PostgresCluster, str]]:
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        cluster = PostgresCluster(Path(folder))
        cluster.start()
        yield cluster, cluster.new_database()
        cluster.stop()


@pytest.fixture
def postgres_of_its_own(
    _cluster: tuple[PostgresCluster, str], django_db_blocker: DjangoDbBlocker
) -> Iterator[PostgresCluster]:
    """A PostgreSQL that this module alone uses, to restart and freeze."""
    cluster, url = _cluster
    with django_db_blocker.unblock(), _default_database(url):
        yield cluster
    cluster.thaw()


@pytest_asyncio.fixture
async def threads(postgres_of_its_own: PostgresCluster) -> AsyncIterator[DatabaseThreads]:
    made = DatabaseThreads(database_breaker(), 2, "keys")
    yield made
    await made.aclose()


def ask() -> int:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT 1")
        (one,) = cursor.fetchone()
    return int(one)


async def back(threads: DatabaseThreads) -> float:
    """Seconds until a probe is answered."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await threads.read(ask, probe=True) == 1
                return loop.time() - began
            except DependencyAway:
                await asyncio.sleep(0.1)


async def test_connections_that_a_restart_has_closed_are_replaced(
    threads: DatabaseThreads, postgres_of_its_own: PostgresCluster
) -> None:
    await asyncio.gather(*(threads.read(ask) for _ in range(8)))
    postgres_of_its_own.stop()
    postgres_of_its_own.start()
    assert await asyncio.gather(*(threads.read(ask) for _ in range(8))) == [1] * 8
    assert not threads.breaker.away


async def test_connections_are_kept(threads: DatabaseThreads) -> None:
    seen = set()

    def which() -> int:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (pid,) = cursor.fetchone()
        return int(pid)

    for _ in range(10):
        seen.add(await threads.read(which))
    assert len(seen) <= 2


async def test_a_server_that_refuses_is_said_once_and_asked_by_probes_alone(
    threads: DatabaseThreads, postgres_of_its_own: PostgresCluster, caplog: pytest.LogCaptureFixture
) -> None:
    await threads.read(ask)
    postgres_of_its_own.stop()
    asked = []

    def client() -> int:
        asked.append(1)
        return ask()

    for _ in range(5):
        with pytest.raises(DependencyAway):
            await threads.read(client)
        with pytest.raises(DependencyAway):
            await threads.read(ask, probe=True)
    assert len(asked) <= 2  # the first question, and its repetition on a new connection
    postgres_of_its_own.start()
    await back(threads)
    assert await threads.read(ask) == 1
    lines = [record.message for record in caplog.records if record.name == "yap.dependency"]
    assert [line.partition(" (")[0].partition(" after")[0] for line in lines] == [
        "database does not answer",
        "database answers again",
    ]


async def test_a_frozen_server_holds_no_thread(threads: DatabaseThreads, postgres_of_its_own: PostgresCluster) -> None:
    await asyncio.gather(*(threads.read(ask) for _ in range(8)))
    loop = asyncio.get_running_loop()
    postgres_of_its_own.freeze()
    began = loop.time()
    asked = await asyncio.gather(
        *(threads.read(ask, wait_s=0.4 if number % 2 else 3.0) for number in range(8)), return_exceptions=True
    )
    assert all(isinstance(answer, DependencyAway) for answer in asked)
    assert loop.time() - began < 3.2
    began = loop.time()
    for _ in range(20):
        with pytest.raises(DependencyAway):
            await threads.read(ask, wait_s=3.0)
    assert loop.time() - began < 0.1
    before = threading.active_count()
    with pytest.raises(DependencyAway):
        await threads.read(ask, probe=True)
    assert threading.active_count() == before
    postgres_of_its_own.thaw()
    assert await back(threads) < 4.0


async def test_errors_that_are_not_the_servers_absence_are_raised_and_change_nothing(threads: DatabaseThreads) -> None:
    def wrong() -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT * FROM nothing_like_it")

    with pytest.raises(Exception, match="does not exist"):
        await threads.read(wrong)

    def full() -> None:
        raise OperationalError from _Refused()

    with pytest.raises(OperationalError):
        await threads.write(full)
    assert not threads.breaker.away
    assert await threads.read(ask) == 1


class _Refused(Exception):
    sqlstate = "53100"  # disk full


async def test_a_write_is_not_repeated(threads: DatabaseThreads, postgres_of_its_own: PostgresCluster) -> None:
    await asyncio.gather(*(threads.write(ask) for _ in range(4)))
    postgres_of_its_own.stop()
    postgres_of_its_own.start()
    runs: list[int] = []

    def write() -> None:
        runs.append(ask())

    await threads.write(write)  # the closed connection is found out beforehand
    assert runs == [1]

    def fails() -> None:
        runs.append(2)
        raise OperationalError("connection lost")

    with pytest.raises(DependencyAway):
        await threads.write(fails)
    assert runs == [1, 2]


async def test_a_key_that_was_admitted_before_is_admitted_while_the_database_hangs(
    threads: DatabaseThreads, postgres_of_its_own: PostgresCluster
) -> None:
    ends = 1000.0

    async def nowhere(key: str, network: str) -> None:
        """No key is known without the database."""

    def look(key: str) -> Caller | None:
        ask()
        expires = ends if key == "expiring" else None
        return None if key == "wrong" else Caller(1, key, key, DEFAULTS, expires_at=expires)

    now = [999.0]
    lookup = CallerLookup(threads, nowhere, look, lambda: now[0])
    loop = asyncio.get_running_loop()
    known = await lookup.find("known")
    assert known is not None
    assert await lookup.find("expiring") is not None
    assert await lookup.find("wrong") is None
    postgres_of_its_own.freeze()
    began = loop.time()
    found, new = await asyncio.gather(lookup.find("known"), lookup.find("new"), return_exceptions=True)
    assert found == known
    assert isinstance(new, DependencyAway)
    assert loop.time() - began < 3.5
    began = loop.time()
    for _ in range(10):
        assert await lookup.find("known") == known
    with pytest.raises(DependencyAway):
        await lookup.find("wrong")
    now[0] = ends + 1
    assert await lookup.find("expiring") is None
    assert loop.time() - began < 0.1
    postgres_of_its_own.thaw()
    await back(threads)
    assert await lookup.find("new") is not None

"""Two servers on one PostgreSQL and one Redis behind nginx: they act as one; what a change or an end of one costs."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.fleet_load import attempts, drained, killed, throughput, until
from tests.benchmarks.report_cost import report_cost
from tests.fleet import OWN_SLOTS, SLOTS, Fleet, fleet
from tests.nginx import need_nginx
from tests.operator import Operator, operator
from tests.server import YapServer
from tests.servers import PostgresCluster, RedisServer
from tests.wsclient import Client, client

pytestmark = pytest.mark.engine
ATTEMPTS = 200


@pytest.fixture(scope="module")
def pair(postgres_cluster: PostgresCluster) -> Iterator[Fleet]:
    """Both servers, for the tests of this module in their order: the last ones end `there`."""
    need_nginx()
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        folder = Path(name)
        (folder / "redis").mkdir()
        store = RedisServer(folder / "redis")
        store.start()
        database = postgres_cluster.new_database()
        try:
            with fleet(folder / "run", store, database) as made:
                yield made
        finally:
            store.stop()
            postgres_cluster.drop_database(database)


@pytest.fixture
def someone(pair: Fleet) -> Iterator[Operator]:
    """An operator at `here`."""
    with operator(pair.here, pair.nginx_here) as made:
        yield made


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_slots_are_exact_under_simultaneous_attempts(pair: Fleet) -> None:
    found = await attempts(pair, [pair.keys["plain"]] * ATTEMPTS)
    assert found.codes == {"pong": SLOTS, "server_at_capacity": ATTEMPTS - SLOTS}
    assert found.taken == SLOTS
    print(f"{ATTEMPTS} attempts answered in {found.seconds:.1f} s, slots free {found.free_after_s:.2f} s after the end")


async def test_a_keys_own_limit_counts_in_both_processes(pair: Fleet) -> None:
    found = await attempts(pair, [pair.keys["own"]] * 60)
    assert found.codes == {"pong": OWN_SLOTS, "server_at_capacity": 60 - OWN_SLOTS}


# -- the dashboard -----------------------------------------------------------------------------------------------------


def _tiles(html: str) -> dict[str, str]:
    return dict(re.findall(r'data-tile="(\w+)".*?<span data-value>([^<]*)<', html, re.DOTALL))


async def test_the_dashboard_lists_both_and_adds_them_up(pair: Fleet, someone: Operator) -> None:
    both = {str(server.process.pid) for server in (pair.here, pair.there) if server.process}
    htmls: list[str] = []

    def shown() -> str:
        htmls.append(str(someone.get("/admin/live/").json()["now"]))
        return htmls[-1]

    async with (
        client(pair.here.ws_url, pair.keys["plain"]) as idle,
        client(pair.there.ws_url, pair.keys["plain"]) as busy,
    ):
        assert (await idle.ask("ping"))["type"] == "pong"
        talking = asyncio.create_task(_talk(busy))
        # The other process reports once a second, and a turn may end just before.
        await until(lambda: _tiles(shown())["turns"] == "1" and htmls[-1].count("1 connection,") == 2, 20)
        talking.cancel()
    assert set(re.findall(r'data-process="(\d+)"', htmls[-1])) == both
    assert _tiles(htmls[-1])["connections"] == "2"
    assert "ready in 2 of 2 processes" in htmls[-1]
    status = await asyncio.to_thread(pair.status)
    assert {str(process["pid"]) for process in status["processes"]} == both
    assert {process["state"] for process in status["processes"]} == {"ready"}


async def _talk(yap: Client) -> None:
    while True:
        await yap.say("Hello", history_text="")


async def test_the_report_costs_the_serving_loop_little(redis_server: str) -> None:
    cost = await report_cost(redis_server, repeat=100)
    print(f"{cost.bytes} bytes, {cost.cpu_us:.0f} µs a second; reading nine others {cost.others_us:.0f} µs")
    assert cost.cpu_us < 5_000
    assert cost.bytes < 4_000


# -- throughput --------------------------------------------------------------------------------------------------------


async def test_clients_are_served_by_both(pair: Fleet) -> None:
    before = [await asyncio.to_thread(_generated, pair, server) for server in (pair.here, pair.there)]
    found = await throughput(pair.nginx, pair.keys["plain"], 8, 3.0)
    after = [await asyncio.to_thread(_generated, pair, server) for server in (pair.here, pair.there)]
    shares = [end - start for start, end in zip(before, after, strict=True)]
    assert not found.failures
    assert sum(shares) >= found.tokens > 0
    assert min(shares) > 0.1 * sum(shares), shares  # nginx counts connections, not tokens
    print(f"{found.tokens_a_second:.0f} tokens/s with 8 clients on both")


def _generated(pair: Fleet, server: YapServer) -> int:
    return int(pair.status(server)["engines"]["chat"]["stats"]["generated"])


# -- changes -----------------------------------------------------------------------------------------------------------


def _key(server: YapServer) -> tuple[int, str]:
    """Create a key; returns its row and the key."""
    full = server.manage("createkey", "customer")
    row = server.manage(
        "shell", "-v", "0", "-c",
        f"from accounts.models import ApiKey; print(ApiKey.objects.get(prefix='{full.split('_')[1]}').pk)",
    )  # fmt: skip
    return int(row), full


async def _revoked_after(someone: Operator, other: YapServer) -> float:
    """Measure the seconds from a click at one server until the other has closed the connection."""
    row, full = await asyncio.to_thread(_key, other)
    async with client(other.ws_url, full) as yap:
        assert (await yap.ask("ping"))["type"] == "pong"
        clicked = time.monotonic()
        revoking = asyncio.create_task(asyncio.to_thread(someone.revoke, row))
        assert (await yap.receive())["error_code"] == "key_revoked"
        assert await yap.closed() == 1008
        took = time.monotonic() - clicked
        await revoking
    async with client(other.ws_url, full) as yap:
        assert (await yap.receive())["error_code"] == "authentication_failed"
    return took


async def test_a_revoke_in_one_closes_the_connections_of_the_other(pair: Fleet, someone: Operator) -> None:
    assert await _revoked_after(someone, pair.there) < 1.0
    # Redis stops: the database poll finds changes meanwhile.
    row, full = _key(pair.here)
    async with client(pair.there.ws_url, full) as yap:
        pair.redis.stop()
        someone.revoke(row)
        assert (await yap.receive(5))["error_code"] == "key_revoked"
        assert await yap.closed() == 1008
    html = someone.get("/admin/live/").json()["now"]
    assert "Redis does not answer" in html
    assert html.count("data-process") == 1
    pair.redis.start()
    took = await _revoked_after(someone, pair.there)
    print(f"revoked by another process {took * 1000:.0f} ms after the click, Redis back")
    assert took < 2.5  # the listener reconnects within two seconds
    await until(lambda: len(pair.pids()) == 2, 5)


# -- the end of a process ----------------------------------------------------------------------------------------------


async def test_a_process_that_drains_and_starts_again_refuses_no_connection(pair: Fleet) -> None:
    found = await drained(pair, 6)
    assert found.lost == 0
    assert not found.refusals
    assert found.admitted > 0
    assert len(await asyncio.to_thread(pair.pids)) == 1  # it has left the list by itself
    print(f"drained in {found.seconds:.1f} s, {found.admitted} new connections admitted meanwhile")
    pair.there.spawn()
    ready = asyncio.create_task(asyncio.to_thread(pair.there.wait_ready))
    admitted = 0
    while not ready.done():
        async with client(pair.nginx.ws_url, pair.keys["plain"], ssl=pair.nginx.tls) as yap:
            assert (await yap.ask("ping"))["type"] == "pong"
        admitted += 1
        await asyncio.sleep(0.1)
    await ready
    print(f"{admitted} connections admitted while it started")


@pytest.mark.faults
async def test_what_a_killed_process_held_is_back_in_time(pair: Fleet) -> None:
    await asyncio.to_thread(pair.both_ready)
    found = await killed(pair, 10, SLOTS - 10)
    print(found)
    assert found.slots_back_s < 15
    assert found.unlisted_s < 15
    assert found.lost <= 10
    assert len(found.back_s) >= found.lost
    assert set(found.refusals) <= {"server_at_capacity"}

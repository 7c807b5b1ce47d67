"""Starts without a database, ends while nothing can be written, and what the next start makes of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.faults.conftest import ENVIRONMENT, Row
from tests.faults.world import Talker, World, connect, make_keys
from tests.server import MANAGE, YapServer
from tests.servers import PostgresCluster, RedisServer

pytestmark = pytest.mark.faults

DRAIN_S = float(ENVIRONMENT["DRAIN_TIMEOUT_S"])


@pytest.fixture(autouse=True)
def _healed(stores: tuple[RedisServer, PostgresCluster]) -> Iterator[None]:
    yield
    for store in stores:
        store.thaw()


async def talk(server: YapServer, key: str, turns: int) -> Talker:
    """A client that has had some turns."""
    talker = Talker(server, key)
    task = asyncio.create_task(talker.run())
    while talker.turns < turns:  # noqa: ASYNC110 - the server decides
        await asyncio.sleep(0.02)
    talker.stop()
    await asyncio.wait_for(task, 60)
    return talker


def ended(server: YapServer) -> float:
    """Send SIGTERM; seconds until the process has ended with status 0."""
    began = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait(DRAIN_S + 10) == 0, server.tail()
    return time.monotonic() - began


def spools(folder: Path) -> list[Path]:
    return list(folder.glob("usage-*.spool"))


async def test_a_start_waits_for_its_database_and_an_end_waits_for_nothing(
    asgi_server: str,
    stores: tuple[RedisServer, PostgresCluster],
    tmp_path_factory: pytest.TempPathFactory,
    report: list[Row],
) -> None:
    valkey, cluster = stores
    database = cluster.new_database()
    options = {**ENVIRONMENT, "SERVER": asgi_server, "DATABASE_URL": database, "REDIS_URL": valkey.url}
    server = YapServer(tmp_path_factory.mktemp("end"), **options)
    try:
        server.manage("migrate", "-v", "0")
        keys = make_keys(server, {"budget": {"tokens_per_day": 10_000_000}})
        world = World([server, server], valkey, cluster, database)
        prefix = keys["budget"].split("_")[1]

        # The database refuses: the server says why and goes on asking.
        cluster.stop()
        server.spawn()
        began = time.monotonic()
        while True:
            status, body = server.http("/readyz", key=None)
            if status == 503 and body["reason"] == "loading the catalogue: the database does not answer":
                break
            assert time.monotonic() - began < 240, (status, body, server.tail())
            await asyncio.sleep(0.1)
        assert body["status"] == "starting"
        assert (await connect(server, world.env)).code == "server_not_ready"
        await asyncio.sleep(2)
        cluster.start()
        healed = server.wait_ready(10)
        assert (await connect(server, keys["budget"])).code == "pong"
        log = server.log.read_text()
        assert log.count("database does not answer") == 1
        assert "Traceback" not in log
        report.append(Row(asgi_server, "PostgreSQL refuses at start", "server_not_ready, then ready", 0, healed))

        # Both freeze with usage unwritten: the end takes no longer than it may, and nothing is lost.
        world.count([await talk(server, keys["budget"], 3)])
        await world.exact([prefix])
        cluster.freeze()
        valkey.freeze()
        talkers = [await talk(server, keys["budget"], 3), await talk(server, world.env, 2)]
        unwritten = sum(talker.turns for talker in talkers)
        world.count(talkers)
        took = await asyncio.to_thread(ended, server)
        (spool,) = spools(server.run_dir)
        assert stat.S_IMODE(spool.stat().st_mode) == 0o600
        assert f"usage of {unwritten} turns" in server.tail(200)
        cluster.thaw()
        valkey.thaw()
        server.start()
        exact = await world.exact([prefix], within_s=10)
        await world.until(lambda: _only_its_own(server), 5)
        saw = f"served to the end; ended after {took:.1f} s (DRAIN_TIMEOUT_S {DRAIN_S:g})"
        report.append(Row(asgi_server, "SIGTERM while both are frozen", saw, 0, exact))
    finally:
        for store in stores:
            store.thaw()
        server.stop()
    assert spools(server.run_dir) == []


async def _only_its_own(server: YapServer) -> bool:
    """Whether the file that was taken up has been removed."""
    return len(spools(server.run_dir)) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A file system of 8 MiB in a namespace of its own: the process that holds it, and where it is mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=8m,mode=700 tmpfs {folder} && echo mounted && exec sleep 3600"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mounted\n"
        yield holder.pid, folder
        holder.kill()


async def test_usage_survives_an_end_on_a_full_disk(
    asgi_server: str, small_disk: tuple[int, Path], tmp_path_factory: pytest.TempPathFactory, report: list[Row]
) -> None:
    holder, folder = small_disk
    inside = Path(f"/proc/{holder}/root{folder}")  # the same folder, seen from here
    template = tmp_path_factory.mktemp("template")
    YapServer(template).manage("migrate", "-v", "0")
    for file in template.iterdir():
        shutil.copy(file, inside / file.name)
    enter = ["nsenter", "--target", str(holder), "--user", "--mount", "--preserve-credentials"]
    outside = tmp_path_factory.mktemp("outside")
    options = {**ENVIRONMENT, "SERVER": asgi_server, "RUN_DIR": str(folder)}
    server = YapServer(outside, (*enter, *MANAGE, "serve"), **options)
    try:
        server.start()
        told = await talk(server, server.api_key, 2)
        await asyncio.sleep(1.5)  # written
        filler = inside / "filler"
        with filler.open("wb", buffering=0) as full, suppress(OSError):
            while True:
                full.write(b"\0" * 4096)
        more = await talk(server, server.api_key, 4)
        await asyncio.sleep(1.5)
        _, body = server.http("/readyz", key=None)
        assert body == {"status": "ready", "degraded": ["usage"]}
        await asyncio.to_thread(ended, server)
        log = server.log.read_text()
        assert log.count("usage cannot be written and is kept") == 1
        assert f"usage of {more.turns} turns ({more.tokens} tokens) is not written" in log
        (spool,) = spools(inside)
        assert stat.S_IMODE(spool.stat().st_mode) == 0o600
        filler.unlink()
        server.start()
        began = time.monotonic()
        expected = (told.turns + more.turns, told.tokens + more.tokens)
        while (found := rows(inside / "yap.sqlite3")) != expected:
            assert time.monotonic() - began < 5, (found, expected)
            await asyncio.sleep(0.1)
        took = time.monotonic() - began
        assert "is taken up" in server.log.read_text()
        saw = "streams; usage kept in a file at the end, taken up by the next start"
        report.append(Row(asgi_server, "disk full, SIGTERM", saw, 1000 * more.longest_gap_s, took))
    finally:
        server.stop()


def rows(path: Path) -> tuple[int, int]:
    """Turns and tokens in the usage rows of an SQLite file, read from a copy: SQLite itself resolves /proc/PID/root."""
    with tempfile.TemporaryDirectory() as copy:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copy(f"{path}{suffix}", f"{copy}/copy.sqlite3{suffix}")
        with closing(sqlite3.connect(f"{copy}/copy.sqlite3")) as database:
            found = database.execute(
                "SELECT sum(turns), sum(prompt_tokens + completion_tokens + tool_prompt_tokens"
                " + tool_completion_tokens) FROM accounts_usage"
            ).fetchone()
    return int(found[0] or 0), int(found[1] or 0)


def test_a_server_whose_engine_does_not_come_up_exits(asgi_server: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    server = YapServer(
        tmp_path / "run", **{**ENVIRONMENT, "SERVER": asgi_server, "CHAT_MODEL": str(tmp_path / "model")}
    )
    server.manage("migrate", "-v", "0")
    server.spawn()
    try:
        assert server.wait(120) == 1
        last = server.log.read_text().strip().splitlines()[-1]
        assert last.startswith("yap: the server cannot get ready: "), last
        assert os.path.basename(str(tmp_path / "model")) in last or "config.json" in last
    finally:
        server.stop()

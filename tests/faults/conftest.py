"""Fixtures of the fault tests: the servers start once for each ASGI server, and every fault is healed again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.world import BUDGET, SLOTS, World, make_keys
from tests.server import TINY_ENV, YapServer, share_cores
from tests.servers import PostgresCluster, RedisServer

ENVIRONMENT = {
    **TINY_ENV, "DEPLOY_MODELS": "chat", "CHAT_MAX_OUT": "60", "MAX_CONCURRENT_CONNECTIONS": str(SLOTS),
    "WS_MAX_MESSAGES_PER_WINDOW": "0", "DRAIN_TIMEOUT_S": "3",
}  # fmt: skip


@dataclass
class Row:
    """One line of the report."""

    server: str
    fault: str
    saw: str
    stall_ms: float
    exact_s: float | None


_report: list[Row] = []


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[Row]:
    """The table that is printed at the end of the run."""
    return _report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if _report:
        terminalreporter.section("faults")
        terminalreporter.write_line("| server | fault | clients saw | longest stall, ms | exact after, s |")
        terminalreporter.write_line("|---|---|---|---|---|")
        for row in _report:
            exact = "–" if row.exact_s is None else f"{row.exact_s:.1f}"
            terminalreporter.write_line(f"| {row.server} | {row.fault} | {row.saw} | {row.stall_ms:.0f} | {exact} |")


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def asgi_server(request: pytest.FixtureRequest) -> str:
    """Every test of a module runs on both."""
    return str(request.param)


@pytest.fixture(scope="module")
def stores() -> Iterator[tuple[RedisServer, PostgresCluster]]:
    """A Redis and a PostgreSQL that this module alone uses."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        (Path(folder) / "redis").mkdir()
        (Path(folder) / "postgres").mkdir()
        Path(folder).chmod(0o755)
        valkey, cluster = RedisServer(Path(folder) / "redis"), PostgresCluster(Path(folder) / "postgres")
        valkey.start()
        cluster.start()
        yield valkey, cluster
        for store in (valkey, cluster):
            store.thaw()
            store.stop()


@pytest.fixture(scope="module")
def world(
    asgi_server: str, stores: tuple[RedisServer, PostgresCluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Two ready servers, their stores empty but for keys."""
    valkey, cluster = stores
    database = cluster.new_database()
    options = {**ENVIRONMENT, "SERVER": asgi_server, "DATABASE_URL": database, "REDIS_URL": valkey.url}
    servers = [YapServer(tmp_path_factory.mktemp(f"faults-{name}"), **options) for name in ("a", "b")]
    share_cores(servers)
    made = World(servers, valkey, cluster, database)
    try:
        servers[0].manage("migrate", "-v", "0")
        names: dict[str, dict[str, object]] = {f"plain{n}": {} for n in range(4)}
        names |= {f"new{n}": {} for n in range(16)}
        names |= {f"budget{n}": {"tokens_per_day": BUDGET} for n in range(4)}
        names |= {f"small{n}": {"tokens_per_day": 600} for n in range(2)}
        names |= {f"single{n}": {"max_connections": 1} for n in range(2)}
        made.keys = make_keys(servers[0], names)
        for server in servers:
            server.spawn()
        for server in servers:
            server.wait_ready()
        yield made
    finally:
        for store in stores:
            store.thaw()
        for server in servers:
            server.stop()

"""The nginx that is shipped, in front of servers with fake engines: a process that cannot serve is passed over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.nginx import Nginx, need_nginx
from tests.security.conftest import SERVERS, fake_server
from tests.server import YapServer
from tests.wsclient import client

pytestmark = pytest.mark.engine
BEHIND_A_PROXY = {"TRUST_PROXY": "1", "ALLOWED_HOSTS": "yap.example.com", "MAX_CONCURRENT_CONNECTIONS": "64"}


@dataclass
class Pair:
    """Two servers; `waiting` is never ready, because its database has no tables."""

    ready: YapServer
    waiting: YapServer
    folder: Path

    def nginx(self, name: str, *servers: YapServer) -> Nginx:
        """Start an nginx in front of these servers."""
        return Nginx(self.folder / name, [server.port for server in servers]).start()


@pytest.fixture(scope="module", params=SERVERS)
def pair(
    request: pytest.FixtureRequest, server_folder: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    need_nginx()
    variables = {**BEHIND_A_PROXY, "SERVER": request.param}
    ready, waiting = fake_server(server_folder(), **variables), fake_server(tmp_path_factory.mktemp("new"), **variables)
    try:
        waiting.spawn()
        ready.start(60)
        until = time.monotonic() + 30
        while waiting.http("/healthz", key=None)[0] != 200:
            assert time.monotonic() < until, waiting.tail()
            time.sleep(0.05)
        yield Pair(ready, waiting, tmp_path_factory.mktemp("nginx"))
    finally:
        ready.stop()
        waiting.stop()


async def test_no_handshake_ends_at_a_process_that_is_not_ready(pair: Pair) -> None:
    nginx = pair.nginx("both", pair.waiting, pair.ready)
    try:
        for path in ("", "/"):
            for _ in range(10):
                async with client(nginx.ws_url + path, pair.ready.api_key, ssl=nginx.tls) as yap:
                    assert (await yap.ask("ping"))["type"] == "pong"
    finally:
        nginx.stop()
    lines = nginx.access_log.read_text().splitlines()
    assert len(lines) == 20
    assert sum('upstream_status="403, 101"' in line for line in lines) >= 8  # they take turns
    assert all(line.rpartition(" upstream_status=")[2] in ('"403, 101"', '"101"') for line in lines)


async def test_where_no_process_is_ready_the_client_is_told_by_the_protocol(pair: Pair) -> None:
    nginx = pair.nginx("waiting", pair.waiting)
    try:
        async with client(nginx.ws_url, pair.ready.api_key, ssl=nginx.tls) as yap:
            assert (await yap.receive())["error_code"] == "server_not_ready"
            assert await yap.closed() == 1013
    finally:
        nginx.stop()


def test_pages_probes_and_keys_behind_nginx(pair: Pair) -> None:
    nginx = pair.nginx("pages", pair.ready)
    try:
        with httpx.Client(verify=nginx.tls, headers={"Host": "yap.example.com"}) as http:
            assert http.get(f"http://127.0.0.1:{nginx.plain_port}/admin/").status_code == 308
            assert http.get(f"{nginx.origin}/readyz").json() == {"status": "ready"}
            page = http.get(f"{nginx.origin}/admin/login/")
            assert page.status_code == 200
            assert "secure" in page.headers["set-cookie"].lower()
            status = http.get(f"{nginx.origin}/status", params={"api_key": pair.ready.api_key})
            assert status.status_code == 200
            assert http.get(f"{nginx.origin}/metrics").status_code == 401  # a request through a proxy is not local
            assert http.get(f"{nginx.origin}/readyz", headers={"Host": "evil.example"}).status_code == 400
        # Probes and the container's health check name the machine, whatever ALLOWED_HOSTS says.
        for path in ("/healthz", "/readyz"):
            assert pair.ready.http(path, key=None)[0] == 200
    finally:
        nginx.stop()
    logs = nginx.access_log.read_text() + nginx.error_log.read_text()
    assert "GET /status" in logs
    assert pair.ready.api_key not in logs


def test_the_configuration_passes_nginxs_own_test(tmp_path: Path) -> None:
    need_nginx()
    assert "test is successful" in Nginx(tmp_path / "nginx", [8001, 8002]).check()

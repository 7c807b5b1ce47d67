"""Two real servers with the tiny model on one Redis and one PostgreSQL, behind the nginx that is shipped."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import redis

from tests.faults.world import make_keys
from tests.nginx import Nginx
from tests.server import TINY_ENV, YapServer, share_cores

if TYPE_CHECKING:
    from tests.servers import RedisServer

SLOTS = 40
OWN_SLOTS = 5
"""Connection limit of the key `own`."""
_ENVIRONMENT = {
    **TINY_ENV, "DEPLOY_MODELS": "chat", "CHAT_MAX_OUT": "40", "MAX_CONCURRENT_CONNECTIONS": str(SLOTS),
    "WS_MAX_MESSAGES_PER_WINDOW": "0", "DRAIN_TIMEOUT_S": "30", "TRUST_PROXY": "1", "SECRET_KEY": "of-both-" + 50 * "x",
}  # fmt: skip


class Fleet:
    """`here` and `there` are the servers, `nginx` is in front of both, `nginx_here` in front of `here` alone.

    `keys` are `plain` and `own`, which has a connection limit of :data:`OWN_SLOTS`.
    """

    def __init__(self, folder: Path, store: RedisServer, database: str, server: str = "daphne") -> None:
        variables = {**_ENVIRONMENT, "SERVER": server, "DATABASE_URL": database, "REDIS_URL": store.url}
        self.redis = store
        self.here, self.there = (YapServer(folder / name, **variables) for name in ("here", "there"))
        share_cores([self.here, self.there])
        self.nginx = Nginx(folder / "nginx", [self.here.port, self.there.port])
        self.nginx_here = Nginx(folder / "nginx-here", [self.here.port])
        for each in (self.here, self.there):  # the admin's origin behind nginx has a port
            each.env["CSRF_TRUSTED_ORIGINS"] = f"{self.nginx.origin},{self.nginx_here.origin}"
        self.keys: dict[str, str] = {}

    def start(self) -> Fleet:
        """Migrate from both servers at once, as two containers do, make keys, start nginx and both servers."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda server: server.prepare(), (self.here, self.there)))
        self.keys = make_keys(self.here, {"plain": {}, "own": {"max_connections": OWN_SLOTS}})
        for nginx in (self.nginx, self.nginx_here):
            nginx.start()
        for server in (self.here, self.there):
            server.spawn()
        for server in (self.here, self.there):
            server.wait_ready()
        return self

    def stop(self) -> None:
        """Stop everything but Redis and PostgreSQL."""
        for each in (self.nginx, self.nginx_here, self.here, self.there):
            each.stop()

    def both_ready(self) -> None:
        """Start `there` again where it has ended or is ending."""
        process = self.there.process
        if process is None or process.poll() is not None or self.there.http("/readyz", key=None)[0] != 200:
            self.there.stop()
            self.there.start()

    # -- reading -------------------------------------------------------------------------------------------------------

    def status(self, server: YapServer | None = None) -> dict[str, Any]:
        """Return `/status` of one server, of `here` by default."""
        headers = {"X-API-Key": YapServer.api_key, "X-Forwarded-Proto": "https"}
        answer: dict[str, Any] = httpx.get(f"{(server or self.here).origin}/status", headers=headers, timeout=10).json()
        return answer

    def pids(self) -> set[int]:
        """Return the process ids that `here` lists."""
        return {int(process["pid"]) for process in self.status()["processes"]}

    def slots(self) -> int:
        """Return the slots that Redis has as taken, leases that have ended included until a process removes them."""
        with redis.Redis.from_url(self.redis.url) as store:
            return int(store.zcard("{yap}:slots"))


@contextmanager
def fleet(folder: Path, store: RedisServer, database: str, server: str = "daphne") -> Iterator[Fleet]:
    """Start a fleet; stop it afterwards."""
    made = Fleet(folder, store, database, server)
    try:
        yield made.start()
    finally:
        made.stop()

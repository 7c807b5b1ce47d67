"""Two servers on one PostgreSQL and one Redis: a change at one takes effect at the other."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.conftest import StartServer
from tests.operator import Operator, operator
from tests.server import YapServer
from tests.servers import RedisServer
from tests.wsclient import client

pytestmark = pytest.mark.engine


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


async def test_a_revoke_in_one_closes_the_connections_of_the_other(
    start_server: StartServer, postgres_server: str, own_redis: RedisServer
) -> None:
    shared = {"DATABASE_URL": postgres_server, "REDIS_URL": own_redis.url, "DEPLOY_MODELS": "chat"}
    here, there = start_server(**shared), start_server(**shared)
    here.manage("migrate", "-v", "0")
    for server in (here, there):
        server.start()
    with operator(here) as someone:
        assert await _revoked_after(someone, there) < 1.0
        # Redis stops: the database poll finds changes meanwhile.
        row, full = _key(here)
        async with client(there.ws_url, full) as yap:
            own_redis.stop()
            someone.revoke(row)
            assert (await yap.receive(5))["error_code"] == "key_revoked"
            assert await yap.closed() == 1008
        own_redis.start()
        took = await _revoked_after(someone, there)
        print(f"revoked by another process {took * 1000:.0f} ms after the click, Redis back")
        assert took < 2.5  # the listener reconnects within two seconds

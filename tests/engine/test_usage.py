"""Usage rows after a server was killed."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.conftest import StartServer
from tests.wsclient import client

pytestmark = pytest.mark.engine

_ROWS = (
    "from django.db.models import Sum\nfrom accounts.models import Usage\n"
    "sums = Usage.objects.aggregate(Sum('turns'), Sum('completion_tokens'))\n"
    "print(*sums.values())"
)


async def test_a_killed_server_loses_at_most_two_seconds_of_usage(start_server: StartServer) -> None:
    server = start_server(DEPLOY_MODELS="chat").start()
    async with client(server.ws_url, server.api_key) as yap:
        turns = [await yap.say("Hello") for _ in range(2)]
        await asyncio.sleep(2)  # the documented bound
        server.signal(signal.SIGKILL)
        await yap.closed()
    server.all_gone(20)
    spoken = sum(turn.usage["completion_tokens"] for turn in turns)
    assert server.manage("shell", "-v", "0", "-c", _ROWS) == f"2 {spoken}"

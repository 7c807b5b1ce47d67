"""The Responses WebSocket at its limits, on both ASGI servers: refused handshakes, refused messages, unread frames."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from tests.security.conftest import SERVERS, StartServer
from tests.security.test_responses_edge import events, open_socket
from tests.server import YapServer

MIB = 1024 * 1024
SOCKETS = 3  # of one key
MESSAGES = 4  # of one key in a minute


async def refused(server: YapServer) -> tuple[int, int, str]:
    """The status, ``Retry-After`` and error code that a handshake is refused with."""
    with pytest.raises(InvalidStatus) as caught:
        async with open_socket(server, "/v1/responses"):
            pass
    answer = caught.value.response
    return answer.status_code, int(answer.headers["retry-after"]), json.loads(answer.body or b"")["error"]["code"]


async def create(line: ClientConnection, text: str) -> None:
    await line.send(json.dumps({"type": "response.create", "model": "mia", "input": text}))


@pytest.mark.parametrize("name", SERVERS)
async def test_what_is_full_is_429_or_503(start_fake: StartServer, name: str) -> None:
    """Of a handshake by its status, which clients act on; of a message by an ``error`` event with the same number."""
    server = start_fake(
        SERVER=name,
        MAX_CONCURRENT_CONNECTIONS="1",
        WS_MAX_MESSAGES_PER_WINDOW=str(MESSAGES),
        WS_HANDSHAKE_ACQUIRE_TIMEOUT_S="0.1",
        YAP_TEST_SOCKETS_PER_KEY=str(SOCKETS),
        DRAIN_TIMEOUT_S="20",
    )
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(open_socket(server, "/v1/responses")) for _ in range(SOCKETS)]
        code, seconds, error = await refused(server)
        assert (code, error) == (429, "rate_limit_exceeded")
        assert seconds >= 1

        async def answer(line: ClientConnection) -> dict[str, Any]:
            """The only answer to a request that is refused."""
            await create(line, "hi")
            [event] = await events(line)
            assert event["type"] == "error"
            return event

        await create(lines[0], "SILENCE")
        assert json.loads(await lines[0].recv())["type"] == "response.created"
        full = await answer(lines[1])
        assert (full["status"], full["error"]["code"]) == (503, "server_at_capacity")
        assert (await answer(lines[1]))["status"] == 503
        assert (await answer(lines[2]))["status"] == 503
        limited = await answer(lines[2])
        assert (limited["status"], limited["error"]["code"]) == (429, "rate_limit_exceeded")

        await lines[2].close()
        server.signal(signal.SIGTERM)  # the running response keeps the server for DRAIN_TIMEOUT_S
        await asyncio.to_thread(wait, lambda: server.http("/readyz", key=None)[0] == 503)
        code, seconds, error = await refused(server)
        assert (code, error) == (503, "server_draining")
        assert seconds >= 1
    assert await asyncio.to_thread(server.wait, 20) == 0
    assert "Traceback" not in server.tail(200)


def wait(condition: Callable[[], bool], deadline_s: float = 10) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < deadline_s
        time.sleep(0.02)

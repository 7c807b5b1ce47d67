"""A revoked key ends its running responses within a second, on every surface of `/v1`, on both ASGI servers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError

from tests.operator import Operator, operator
from tests.security.test_openai_sockets import active, until
from tests.security.test_responses_edge import open_socket
from tests.server import YapServer

SILENCE = [{"role": "user", "content": "SILENCE"}]
POSTS: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": SILENCE},
    "completions": {"prompt": "SILENCE"},
    "responses": {"input": "SILENCE"},
}


async def rest(line: ClientConnection) -> list[dict[str, Any]]:
    """Every event until the server closes."""
    found: list[dict[str, Any]] = []
    with suppress(ConnectionClosedError):
        while True:
            found.append(json.loads(await line.recv()))
    return found


@pytest.fixture
def someone(edge_server: YapServer) -> Iterator[Operator]:
    with operator(edge_server) as made:
        yield made


async def test_every_surface_says_so_within_a_second(edge_server: YapServer, someone: Operator) -> None:
    code = "from accounts.services import create_key\nrow, full = create_key('leaked')\nprint(row.pk, full)"
    row, key = (await asyncio.to_thread(edge_server.manage, "shell", "-v", "0", "-c", code)).split()
    ends: dict[str, float] = {}

    async def post(http: httpx.AsyncClient, path: str, *, stream: bool) -> tuple[int, str]:
        fields = {"model": "mia", "stream": stream, **POSTS[path]}
        answer = await http.post(f"/v1/{path}", json=fields)
        ends[f"{path} {stream}"] = time.monotonic()
        return answer.status_code, answer.text

    async with (
        httpx.AsyncClient(base_url=edge_server.origin, headers={"Authorization": f"Bearer {key}"}, timeout=30) as http,
        open_socket(edge_server, "/v1/responses", key) as line,
        open_socket(edge_server, "/v1/responses", key) as idle,
    ):
        await line.send(json.dumps({"type": "response.create", "model": "mia", "input": "SILENCE"}))
        asked = {
            (path, stream): asyncio.create_task(post(http, path, stream=stream))
            for path in POSTS for stream in (True, False)
        }  # fmt: skip
        await asyncio.to_thread(until, lambda: active(edge_server) == len(asked) + 1, 10)
        await asyncio.to_thread(someone.revoke, int(row))
        revoked = time.monotonic()
        async with asyncio.timeout(10):
            events, left = await rest(line), await rest(idle)
            ends["socket"] = time.monotonic()
            answers = {name: await task for name, task in asked.items()}
        for (path, stream), (status, text) in answers.items():
            assert status == (200 if stream else 401), path
            assert '"invalid_api_key"' in text
            assert "[DONE]" not in text
            assert "response.completed" not in text
        assert [event["type"] for event in events] == [
            "response.created", "response.in_progress", "response.incomplete", "error"
        ]  # fmt: skip
        assert [(event["type"], event["error"]["code"]) for event in left] == [("error", "invalid_api_key")]
        assert line.close_code == idle.close_code == 1008
        while (await http.get("/v1/models")).status_code != 401:  # a process remembers a key for a second
            assert time.monotonic() - revoked < 3
    assert {name: after for name, at in ends.items() if (after := at - revoked) > 1} == {}
    await asyncio.to_thread(until, lambda: active(edge_server) == 0, 2)

"""The Responses WebSocket on both ASGI servers, over real sockets: addresses, handshakes, OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from openai import AsyncOpenAI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.security.conftest import StartServer
from tests.server import YapServer

SAID = "Hello there, how are you today?"


def open_socket(server: YapServer, path: str, key: str | None = YapServer.api_key) -> connect:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return connect(f"ws://127.0.0.1:{server.port}{path}", additional_headers=headers)


async def events(line: ClientConnection, last: str = "response.completed") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while not found or found[-1]["type"] not in (last, "error"):
            found.append(json.loads(await line.recv()))
    return found


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/", "/v1?model=mia", "/v1/?model=mia"])
async def test_every_address_that_clients_make(edge_server: YapServer, path: str) -> None:
    async with open_socket(edge_server, path) as line:
        named = {} if "model" in path else {"model": "mia"}
        await line.send(json.dumps({"type": "response.create", "input": "hi", **named}))
        found = await events(line)
        assert found[-1]["response"]["output"][0]["content"][0]["text"] == SAID
        assert [event["sequence_number"] for event in found] == list(range(len(found)))


@pytest.mark.parametrize("key", [None, "wrong-key"])
async def test_a_wrong_key_is_refused_with_401(edge_server: YapServer, key: str | None) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with open_socket(edge_server, "/v1/responses", key):
            pass
    answer = caught.value.response
    assert answer.status_code == 401
    assert json.loads(answer.body or b"")["error"]["code"] == "invalid_api_key"
    assert answer.headers["content-type"] == "application/json"


async def test_openais_own_client(edge_server: YapServer) -> None:
    async with (
        AsyncOpenAI(base_url=f"{edge_server.origin}/v1", api_key=edge_server.api_key, max_retries=0) as client,
        client.responses.connect() as line,
    ):
        found: list[Any] = []
        await line.response.create(model="mia", input="hi", store=False)
        async for event in line:
            found.append(event)
            if event.type == "response.completed":
                break
        assert "".join(event.delta for event in found if event.type == "response.output_text.delta") == SAID
        first = found[-1].response
        await line.response.create(model="mia", input="and?", previous_response_id=first.id, store=False)
        async for event in line:
            if event.type == "response.completed":
                assert event.response.previous_response_id == first.id
                assert event.response.usage is not None
                assert event.response.usage.input_tokens_details.cached_tokens > 0
                break


async def test_openais_own_client_over_http(edge_server: YapServer) -> None:
    async with AsyncOpenAI(base_url=f"{edge_server.origin}/v1", api_key=edge_server.api_key, max_retries=0) as client:
        whole = await client.responses.create(model="mia", input="hi")
        assert whole.output_text == SAID
        stream = await client.responses.create(model="mia", input="and?", previous_response_id=whole.id, stream=True)
        kinds = [event.type async for event in stream]
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


async def test_a_connection_is_closed_by_a_close_frame_at_once(edge_server: YapServer) -> None:
    line = await open_socket(edge_server, "/v1/responses")
    async with asyncio.timeout(1):
        await line.close()
    assert line.close_code == 1000


async def test_a_server_that_ends_closes_idle_connections(start_fake: StartServer) -> None:
    for name in ("daphne", "uvicorn"):
        server = start_fake(SERVER=name)
        async with open_socket(server, "/v1/responses") as line:
            server.signal(15)
            async with asyncio.timeout(10):
                await line.wait_closed()
            assert line.close_code == 1012
        assert await asyncio.to_thread(server.wait, 20) == 0

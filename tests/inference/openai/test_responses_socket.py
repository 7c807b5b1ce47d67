"""The Responses WebSocket as an ASGI application: handshakes, and what a connection gives back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from inference.openai import responses_socket
from inference.openai.responses_socket import BATCHES, ResponsesSocket
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import UNLIMITED
from tests.fakes.socket import Socket
from tests.inference.openai.exchange import KEY, Surface, surface
from tests.inference.session_lines import held

Message = dict[str, Any]


def socket(parts: Surface, key: str = KEY, query: str = "", **options: Any) -> Socket:
    headers = [("Authorization", f"Bearer {key}")]
    application = options.pop("application", None) or ResponsesSocket(parts.context)
    return Socket(application, query, headers, path="/v1/responses", **options)


def create(text: str = "hi", **fields: Any) -> Message:
    return {"type": "response.create", "model": "anna", "input": text, **fields}


async def handshake(parts: Surface, key: str | None = KEY, *, extension: bool = True) -> list[Message]:
    """The ASGI messages that answer a handshake which is refused."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Message = {
        "type": "websocket", "path": "/v1/responses", "query_string": b"", "subprotocols": [],
        "headers": [(b"authorization", f"Bearer {key}".encode())] if key else [], "client": ["127.0.0.1", 5],
    }  # fmt: skip
    if extension:
        scope["extensions"] = {"websocket.http.response": {}}
    await ResponsesSocket(parts.context)(scope, receive, send)
    return sent


def refusal(sent: list[Message]) -> tuple[int, dict[str, str], Message]:
    start, body = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, json.loads(body["body"])["error"]


async def test_a_turn_and_everything_given_back() -> None:
    async with surface(FakeEngine()) as parts:
        line = await socket(parts).connect()
        assert len(parts.context.registry) == 1
        line.say(create())
        await line.until_type("response.completed")
        await line.leave()
        assert len(parts.context.registry) == 0
        assert (await parts.slots.snapshot())["active"] == 0


@pytest.mark.parametrize("extensions", [(), (BATCHES,)])
async def test_events_of_one_moment_are_sent_together_where_the_server_can(extensions: tuple[str, ...]) -> None:
    async with surface(FakeEngine(reply="Hello")) as parts:
        line = await socket(parts, extensions=extensions).connect()
        line.say(create())
        await line.until_type("response.completed")
        kinds = [frame["type"].removeprefix("response.") for frame in line.frames]
        assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
        assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
        deltas = kinds.count("output_text.delta")
        together = [2, 3, *[1] * (deltas - 1), 3, 1]  # the last event follows when the turn is accounted
        assert line.batches == (together if extensions else [1] * len(kinds))
        await line.leave()


async def test_a_response_counts_with_its_connection() -> None:
    chat = held(2)
    async with surface(chat) as parts:
        registry = parts.context.registry
        line = await socket(parts).connect()
        assert (registry.connections, registry.running) == (1, 0)
        line.say(create())
        await line.until_type("response.output_text.delta")
        assert (registry.connections, registry.running) == (1, 1)
        request = parts.begin("/v1/responses", {"model": "anna", "input": "hi", "stream": True})
        await chat.wait_for_requests(2)
        assert (registry.connections, registry.running) == (2, 2)
        request.leave()
        await request.end()
        await line.leave()
        assert (registry.connections, registry.running) == (0, 0)


async def test_the_address_names_the_model() -> None:
    async with surface(FakeEngine()) as parts:
        line = await socket(parts, query="model=max").connect()
        line.say({"type": "response.create", "input": "hi"})
        assert (await line.until_type("response.completed"))["response"]["model"] == "max"
        await line.leave()


async def test_a_client_that_leaves_in_a_response_stops_it() -> None:
    chat = held(2)
    async with surface(chat) as parts:
        line = await socket(parts).connect()
        line.say(create())
        await line.until_type("response.output_text.delta")
        await line.leave()
        async with asyncio.timeout(1):
            await chat.wait_idle()
        assert parts.context.registry.running == 0
        assert (await parts.slots.snapshot())["active"] == 0


async def test_a_send_that_fails_ends_the_connection() -> None:
    chat = held(2)
    async with surface(chat) as parts:
        line = await socket(parts).connect()
        line.say(create())
        await line.until_type("response.output_text.delta")
        line.broken = OSError("gone")
        assert chat.step is not None
        chat.step.release()
        await line.ended()
        assert line.task is not None
        assert line.task.exception() is None
        assert len(parts.context.registry) == 0


@pytest.mark.parametrize("key", [None, "wrong"])
async def test_a_wrong_key_is_refused_with_401(key: str | None) -> None:
    async with surface(FakeEngine()) as parts:
        status, headers, error = refusal(await handshake(parts, key))
        assert (status, error["code"]) == (401, "invalid_api_key")
        assert "retry-after" not in headers


async def test_a_server_that_is_not_ready_refuses_with_503_and_a_time() -> None:
    async with surface(FakeEngine()) as parts:
        parts.context.serving.draining = True
        status, headers, error = refusal(await handshake(parts))
        assert (status, error["type"]) == (503, "server_error")
        assert int(headers["retry-after"]) >= 1


async def test_a_key_with_too_many_connections_is_refused_with_429(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses_socket, "MAX_SOCKETS_PER_KEY", 2)
    async with surface(FakeEngine()) as parts:
        parts.callers["key-two"] = replace(UNLIMITED, prefix="two")
        application = ResponsesSocket(parts.context)
        lines = [await socket(parts, application=application).connect() for _ in range(2)]
        third = Socket(application, "", [("Authorization", f"Bearer {KEY}")], path="/v1/responses")
        await third.connect()
        assert third.accepted is None
        assert third.closed is not None
        other = await socket(parts, "key-two", application=application).connect()
        assert other.accepted is not None
        await lines[0].leave()
        again = await socket(parts, application=application).connect()
        assert again.accepted is not None
        for line in (lines[1], other, again):
            await line.leave()


async def test_a_server_without_the_extension_closes_before_the_accept() -> None:
    async with surface(FakeEngine()) as parts:
        assert await handshake(parts, "wrong", extension=False) == [{"type": "websocket.close", "code": 1008}]

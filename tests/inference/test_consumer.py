"""The WebSocket edge: key, admission, one conversation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from accounts.callers import Caller
from tests.fakes.serving import START
from tests.inference import consumer_server
from tests.inference.consumer_server import (
    KEY,
    SAID,
    Server,
    refused,
)

server = consumer_server.server

# -- the key ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"query": f"api_key={KEY}"},
        {"query": f"x=1&api_key={KEY}"},
        {"query": "", "headers": [("X-API-Key", KEY)]},
        {"query": "", "headers": [("authorization", f"Bearer {KEY}")]},
        {"query": "", "headers": [("Authorization", f"bearer  {KEY}")]},
        {"query": "", "subprotocols": ["yap.v1", f"yap.key.{KEY}"]},
        {"query": f"api_key={KEY}", "headers": [("X-API-Key", KEY)]},
    ],
)
async def test_where_a_key_may_be(server: Server, options: dict[str, Any]) -> None:
    socket = await server.connect(**options)
    socket.say({"type": "ping"})
    await socket.until_type("pong")
    assert socket.accepted == {
        "type": "websocket.accept",
        "subprotocol": "yap.v1" if "subprotocols" in options else None,
    }
    await socket.leave()
    await server.free()


@pytest.mark.parametrize(
    "options",
    [
        {"query": ""},
        {"query": "api_key="},
        {"query": "api_key=wrong"},
        {"query": f"key={KEY}"},
        {"query": "", "headers": [("X-API-Key", "wrong")]},
        {"query": "", "headers": [("Authorization", f"Basic {KEY}")]},
        {"query": "", "subprotocols": ["yap.v1"]},
        {"query": "api_key=key-two", "headers": [("X-API-Key", KEY)]},
        {"query": f"api_key={KEY}&api_key=key-two"},
        {"query": f"api_key={KEY}", "subprotocols": ["yap.v1", "yap.key.wrong"]},
    ],
)
async def test_no_key_a_wrong_key_or_two_of_them(server: Server, options: dict[str, Any]) -> None:
    frame = await refused(server.socket(**options), "authentication_failed", 1008)
    assert KEY not in str(frame)
    await server.free()


# -- the admission --------------------------------------------------------------------------------------


async def test_a_full_server(server: Server) -> None:
    first, second = await server.connect(), await server.connect()
    frame = await refused(server.socket(), "server_at_capacity", 1013)
    assert frame["capacity"] == {"active": 2, "max": 2, "available": 0, "at_capacity": True}
    server.admission = replace(server.admission, acquire_timeout=5.0)
    waiting = await server.socket().connect()
    await first.leave()
    waiting.say({"type": "ping"})
    await waiting.until_type("pong")
    await asyncio.gather(second.leave(), waiting.leave())
    await server.free()


async def test_a_keys_own_places(server: Server) -> None:
    first = await server.connect("api_key=key-two")
    frame = await refused(server.socket("api_key=key-two"), "server_at_capacity", 1013)
    assert frame["capacity"] == {"active": 1, "max": 1, "available": 0, "at_capacity": True}
    other = await server.connect()
    await asyncio.gather(first.leave(), other.leave())
    again = await server.connect("api_key=key-two")
    await again.leave()
    await server.free()


async def test_engines_that_are_not_ready(server: Server) -> None:
    server.serving.started = False
    frame = await refused(server.socket(), "server_not_ready", 1013)
    assert frame["retry_in"] >= 1
    server.serving.started = True
    server.chat.die()
    async with asyncio.timeout(5):
        while server.serving.engines.ready:  # noqa: ASYNC110 - the service watches every half second
            await asyncio.sleep(0.01)
    assert (await refused(server.socket(), "server_not_ready", 1013))["retry_in"] >= 1
    await server.free()


@pytest.mark.parametrize("draining", [False, True])
async def test_a_balancer_may_try_the_next_process(server: Server, draining: bool) -> None:
    server.admission = replace(server.admission, trust_proxy=True)
    socket = await server.connect(headers=[("X-Yap-Try-Next", "1")])  # a ready process ignores the header
    await socket.leave()
    server.serving.started, server.serving.draining = False, draining
    socket = await server.socket(headers=[("X-Yap-Try-Next", "1")]).connect()
    await socket.ended()
    assert socket.accepted is None  # HTTP 403
    code, close = ("server_draining", 1012) if draining else ("server_not_ready", 1013)
    await refused(server.socket(headers=[("X-Yap-Try-Next", "")]), code, close)
    await refused(server.socket(), code, close)
    server.admission = replace(server.admission, trust_proxy=False)
    await refused(server.socket(headers=[("X-Yap-Try-Next", "1")]), code, close)


async def test_a_draining_server(server: Server) -> None:
    server.serving.draining = True
    frame = await refused(server.socket(), "server_draining", 1012)
    assert frame["retry_in"] >= 1
    await refused(server.socket(""), "authentication_failed", 1008)  # tells a stranger nothing
    await server.free()


async def test_a_server_that_drains_while_a_client_waits_for_a_place(server: Server) -> None:
    first, second = await server.connect(), await server.connect()
    server.admission = replace(server.admission, acquire_timeout=5.0)
    waiting = await server.socket().connect()
    server.serving.draining = True
    await first.leave()
    await waiting.ended()
    assert [frame["error_code"] for frame in waiting.frames] == ["server_draining"]
    await second.leave()
    await server.free()


async def test_a_lookup_that_fails(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def away(key: str, network: str) -> Caller | None:
        raise OSError("database at /secret/slot is away")

    server.admission = replace(server.admission, find_caller=away)
    frame = await refused(server.socket(), "internal_error", 1013)
    assert "secret" not in str(frame)
    assert frame["reference"] in caplog.text
    await server.free()


async def test_close_codes_are_the_operators(server: Server) -> None:
    server.admission = replace(server.admission, close_unauthorized=4401, close_busy=4013)
    await refused(server.socket(""), "authentication_failed", 4401)
    server.serving.started = False
    await refused(server.socket(), "server_not_ready", 4013)


# -- a conversation --------------------------------------------------------------------------------


async def test_a_conversation(server: Server) -> None:
    socket = await server.connect()
    assert await server.taken() == 1
    assert len(server.registry) == 1
    socket.say(START)
    await socket.until_type("done")
    assert "".join(frame["text"] for frame in socket.frames if frame["type"] == "token") == SAID
    socket.say(b"\x00")
    frame = await socket.until_type("error")
    assert frame["error_code"] == "invalid_message"
    socket.say("__END__")
    await socket.until(lambda: socket.closed is not None)
    assert socket.closed == {"type": "websocket.close", "code": 1000}
    assert socket.frames[-1]["type"] == "connection_closed"
    await socket.leave()
    await server.free()


async def test_a_frame_does_not_wait_for_generation(server: Server) -> None:
    server.chat.first = asyncio.Event()
    socket = await server.connect()
    socket.say(START)
    await server.chat.wait_for_requests(1)
    socket.say({"type": "ping"})
    await socket.until_type("pong")
    socket.say("__CANCEL__")
    assert (await socket.until_type("done"))["cancelled"] is True
    await socket.leave()
    await server.free()

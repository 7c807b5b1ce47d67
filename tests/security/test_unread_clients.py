"""A client that does not read costs at most 1 MiB and ten seconds, on every surface that streams, on both servers."""

from __future__ import annotations

import json
import socket
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.security.buffer_probe import PATH
from tests.security.conftest import SERVERS, StartServer
from tests.security.raw_socket import status
from tests.server import YapServer

MIB = 1024 * 1024
EACH = 4  # clients of each surface
START = {"type": "start", "session_id": "s", "persona": "mia", "user_utterance": "FLOOD"}
HI = [{"role": "user", "content": "FLOOD"}]
POSTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": HI}),
    "completions": ("/v1/completions", {"prompt": "FLOOD"}),
    "responses": ("/v1/responses", {"input": "FLOOD", "store": False}),
}
SOCKETS: dict[str, tuple[str, dict[str, Any]]] = {
    "responses socket": ("/v1/responses", {"type": "response.create", "model": "mia", "input": "FLOOD"}),
    "conversation": ("/ws", START),
}


def begin(line: socket.socket, server: YapServer, surface: str) -> None:
    """Ask for a reply without end."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(("127.0.0.1", server.port))
    head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {server.api_key}\r\n"
    if surface in POSTS:
        path, fields = POSTS[surface]
        body = json.dumps({"model": "mia", "stream": True, **fields})
        line.sendall(f"POST {path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        return
    path, event = SOCKETS[surface]
    key = b64encode(bytes(16)).decode()
    upgrade = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    line.sendall(f"GET {path} HTTP/1.1\r\n{head}{upgrade}\r\n".encode())
    head_of_answer = b""
    while not head_of_answer.endswith(b"\r\n\r\n"):
        head_of_answer += line.recv(1)
    assert status(head_of_answer) == 101
    line.sendall(text_frame(event))


def text_frame(event: dict[str, Any]) -> bytes:
    """A short masked text frame; the mask is zero."""
    payload = json.dumps(event).encode()
    assert len(payload) < 126
    return bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload


def active(server: YapServer) -> int:
    found: int = server.status()["connections"]["active"]
    return found


def ended(server: YapServer) -> int:
    """Count the replies that have ended."""
    return server.log.read_text().count(" ended=")


def buffers(server: YapServer) -> dict[str, int]:
    found: dict[str, int] = server.http(PATH)[1]
    return found


def until(condition: Callable[[], bool], deadline_s: float) -> float:
    """Measure the seconds until a condition holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < deadline_s
        time.sleep(0.02)
    return time.monotonic() - began


@pytest.fixture(params=SERVERS)
def server(start_fake: StartServer, request: pytest.FixtureRequest) -> YapServer:
    count = EACH * (len(POSTS) + len(SOCKETS))
    return start_fake(
        SERVER=request.param,
        YAP_TEST_PROBE="1",
        WS_MAX_MESSAGES_PER_WINDOW="0",
        MAX_CONCURRENT_CONNECTIONS=str(count),
        OPENAI_RECORDS="0",  # the endless reply's own text, hundreds of times a real reply's
        SESSION_KEEP_S="0",
        MALLOC_ARENA_MAX="2",
    )


def cut_off(server: YapServer, surfaces: list[str]) -> float:
    """Let clients ask and not read. Returns the seconds until all have lost their places."""
    with ExitStack() as stack:
        lines = [stack.enter_context(socket.socket()) for _ in surfaces]
        began, before = time.monotonic(), ended(server)
        for line, surface in zip(lines, surfaces, strict=True):
            begin(line, server, surface)
        until(lambda: ended(server) == before + len(lines), 40)
        until(lambda: active(server) == 0, 5)
        took = time.monotonic() - began
        for line in lines:
            line.settimeout(5)
            with suppress(ConnectionError):  # the rest in the kernel's buffers, then the end
                while line.recv(MIB):
                    pass
    return took


def test_a_client_that_does_not_read_costs_a_mebibyte_and_ten_seconds(server: YapServer) -> None:
    surfaces = [*POSTS, *SOCKETS] * EACH
    cut_off(server, surfaces)  # what the replies themselves need
    assert 64 * 1024 < buffers(server)["most"] <= MIB
    before = server.resident_bytes()
    assert cut_off(server, surfaces) < 35  # ten, and a busy machine writes twenty endless replies meanwhile
    found = buffers(server)
    assert found["most"] <= MIB
    assert found["all"] <= len(surfaces) * MIB
    assert server.resident_bytes() - before < len(surfaces) * MIB  # of which nothing is held for a client
    assert "Traceback" not in server.tail(400)

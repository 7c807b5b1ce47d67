"""The OpenAI surface over real sockets on both ASGI servers: clients that leave, clients that do not read, the SDK."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.security.raw_socket import connect, exchange, status
from tests.server import YapServer

MIB = 1024 * 1024


def active(server: YapServer) -> int:
    found: int = server.status()["connections"]["active"]
    return found


def until(condition: Callable[[], bool], deadline_s: float) -> float:
    """Measure the seconds until a condition holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < deadline_s
        time.sleep(0.01)
    return time.monotonic() - began


def sdk(server: YapServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.origin}/v1", api_key=server.api_key, max_retries=0, timeout=10)


def persona(server: YapServer) -> str:
    return next(iter(sdk(server).models.list())).id


def request(server: YapServer, text: str, *, stream: bool) -> bytes:
    """A chat completion as bytes."""
    messages = [{"role": "user", "content": text}]
    body = json.dumps({"model": persona(server), "messages": messages, "stream": stream}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {server.api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot_at_once(edge_server: YapServer, stream: bool) -> None:
    with connect(edge_server) as line:
        line.sendall(request(edge_server, "SILENCE", stream=stream))
        until(lambda: active(edge_server) == 1, 5)
        if stream:
            assert line.recv(4096).startswith(b"HTTP/1.1 200")  # the head comes before the first token
    assert until(lambda: active(edge_server) == 0, 1) < 0.5


def test_the_sdk_reads_streams_answers_and_errors(edge_server: YapServer) -> None:
    client: Any = sdk(edge_server)
    fields: dict[str, Any] = {"model": persona(edge_server), "messages": [{"role": "user", "content": "hi"}]}
    answer = client.chat.completions.create(**fields)
    assert answer.choices[0].message.content == "Hello there, how are you today?"
    assert answer._request_id
    usage = {"include_usage": True}
    chunks = list(client.chat.completions.create(**fields, stream=True, stream_options=usage))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    with pytest.raises(openai.NotFoundError, match=fields["model"]):
        client.chat.completions.create(**{**fields, "model": "gpt-5"})
    with pytest.raises(openai.BadRequestError, match="role"):
        client.chat.completions.create(**{**fields, "messages": [{"role": "x"}]})
    with pytest.raises(openai.AuthenticationError):
        client.copy(api_key="wrong").models.list()
    assert until(lambda: active(edge_server) == 0, 1) < 0.5


def test_a_kept_connection_serves_another_request(edge_server: YapServer) -> None:
    whole = request(edge_server, "hi", stream=True)
    with connect(edge_server) as line:
        for _ in range(2):
            line.sendall(whole)
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += line.recv(65536)
            assert received.startswith(b"HTTP/1.1 200")
            assert received.count(b"data: [DONE]") == received.count(b"\r\n0\r\n\r\n") == 1


def test_a_body_over_the_limit_is_answered_as_openai_does(edge_server: YapServer) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (MIB + 1)
    answer = exchange(edge_server, head)
    assert status(answer) == 413
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_too_large"

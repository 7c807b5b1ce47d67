"""F3 and F13: what a client without a key can make the server hold. Both ASGI servers, over real sockets."""

from __future__ import annotations

import socket
import time
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path

import pytest

from accounts.addresses import network_of
from tests.security.conftest import StartServer
from tests.security.raw_socket import connect, exchange, open_until, read_answer, status
from tests.server import YapServer
from tests.wsclient import client
from yapserver import http_limits
from yapserver.http_limits import KIB, MIB, SocketCounter, max_body_bytes

HEAD = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n"
PATHS = [
    ("/healthz", 64 * KIB),
    ("/nothere", 64 * KIB),
    ("/admin/login/", 64 * KIB),
    ("/admin/", 11 * MIB),
    ("/v1/x", MIB),
]


def head(path: str, *headers: str) -> bytes:
    return HEAD % (path.encode(), "".join(f"{header}\r\n" for header in headers).encode())


@pytest.mark.parametrize(("path", "limit"), PATHS)
def test_a_body_that_is_too_large_is_refused_from_the_headers_on(edge_server: YapServer, path: str, limit: int) -> None:
    began = time.monotonic()
    answer = exchange(edge_server, head(path, f"Content-Length: {limit + 1}"))
    assert status(answer) == 413, answer[:300]
    assert b"too large" in answer
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(("path", "limit"), [row for row in PATHS if row[1] <= MIB])
def test_a_body_at_the_limit_reaches_the_application(edge_server: YapServer, path: str, limit: int) -> None:
    answer = exchange(edge_server, head(path, f"Content-Length: {limit}", "Connection: close"), b"x" * limit)
    assert status(answer) in (403, 404, 405), answer[:300]


def test_half_a_gigabyte_costs_nothing(edge_server: YapServer, tmp_path: Path) -> None:
    before = edge_server.resident_bytes()
    with connect(edge_server) as line:
        line.sendall(head("/healthz", f"Content-Length: {512 * MIB}"))
        sent = 0
        try:
            for _ in range(512):
                line.sendall(b"x" * MIB)
                sent += 1
        except OSError:
            pass
    assert sent < 512
    assert edge_server.resident_bytes() - before < 20 * MIB


def test_no_100_continue_for_a_body_that_is_refused(edge_server: YapServer) -> None:
    request = head("/healthz", f"Content-Length: {512 * MIB}", "Expect: 100-continue")
    answer = exchange(edge_server, request)
    assert status(answer) == 413
    assert b"100 Continue" not in answer


def test_a_chunked_body_is_counted(edge_server: YapServer) -> None:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    within = exchange(edge_server, head("/healthz", "Transfer-Encoding: chunked"), chunk * 3, b"0\r\n\r\n")
    assert status(within) == 405, within[:300]
    beyond = exchange(edge_server, head("/healthz", "Transfer-Encoding: chunked"), *[chunk] * 6)
    assert status(beyond) == 413, beyond[:300]


def test_a_broken_form_reaches_the_application(edge_server: YapServer) -> None:
    body = b"{"
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        fields = (f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close")
        key = f"Authorization: Bearer {edge_server.api_key}"
        answer = exchange(edge_server, head("/v1/chat/completions", key, *fields), body)
        assert status(answer) == 400
        assert b"invalid_json" in answer


def test_a_large_percent_encoded_form_is_refused(edge_server: YapServer) -> None:
    encoded = "Content-Type: application/x-www-form-urlencoded"
    answer = exchange(edge_server, head("/admin/x/", encoded, f"Content-Length: {257 * KIB}"))
    assert status(answer) == 413, answer[:300]
    body = b"note=" + b"%7B" * 10_000
    answer = exchange(edge_server, head("/admin/x/", encoded, f"Content-Length: {len(body)}"), body)
    assert status(answer) in (302, 403, 404), answer[:300]


def test_headers_without_end_are_refused(edge_server: YapServer) -> None:
    for request in (
        b"GET /" + b"x" * 64 * KIB,
        b"GET / HTTP/1.1\r\nX: " + b"x" * 64 * KIB,
        b"GET / HTTP/1.1\r\n" + b"X-Some-Header: some value\r\n" * 3000,
        head("/healthz", "X: " + "x" * 64 * KIB),
    ):
        assert status(exchange(edge_server, request)) in (0, 400, 431)
    assert edge_server.http("/healthz")[0] == 200


def test_a_kept_connection_serves_on(edge_server: YapServer) -> None:
    with connect(edge_server) as line:
        for path in ("/healthz", "/healthz", "/readyz"):
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            assert status(read_answer(line)) == 200
        line.sendall(head("/healthz", "Content-Length: 5") + b"hello")
        assert status(read_answer(line)) == 405


def test_a_stream_for_http_1_0_is_not_chunked(edge_server: YapServer) -> None:
    body = b'{"model":"mia","stream":true,"messages":[{"role":"user","content":"hi"}]}'
    key = edge_server.api_key.encode()
    line = b"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
    answer = exchange(edge_server, line % (key, len(body)), body)
    assert status(answer) == 200, answer[:300]
    fields, _, events = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in fields.lower()
    assert events.startswith(b"data: {")
    assert events.endswith(b"data: [DONE]\n\n")
    known = exchange(edge_server, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert known.endswith((b'{"status": "ok"}', b'{"status":"ok"}'))


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
def test_an_unfinished_request_ends_by_an_absolute_deadline(start_fake: StartServer, server: str) -> None:
    """The deadlines of this server are a tenth of the shipped ones: two seconds for headers, six for a body."""
    running = start_fake(SERVER=server, YAP_TEST_DEADLINES="0.1")
    headers, body = http_limits.HEADER_DEADLINE_S / 10, http_limits.BODY_DEADLINE_S / 10
    with connect(running) as half_head, connect(running) as half_body, connect(running) as half_handshake:
        half_head.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        half_handshake.sendall(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX: "
        )
        half_body.sendall(head("/healthz", "Content-Length: 1000"))
        for line in (half_head, half_handshake):
            closed = open_until(line, headers + 3, b"x")
            assert closed is not None
        closed = open_until(half_body, body + 3, b"x")
        assert closed is not None
        assert closed > 1  # it was not taken for a header
    assert running.http("/healthz")[0] == 200


def _admitted(running: YapServer) -> socket.socket:
    """Connect again until the server keeps the socket: those of its start may still count."""
    for _ in range(20):
        with suppress(ConnectionError):
            line = connect(running)
            if open_until(line, 0.3) is None:
                return line
            line.close()
    raise AssertionError("the server keeps no socket")


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
def test_one_address_holds_a_bounded_number_of_sockets(start_fake: StartServer, server: str) -> None:
    running = start_fake(SERVER=server, MAX_SOCKETS_PER_ADDRESS="10")
    with ExitStack() as stack:
        lines = [stack.enter_context(_admitted(running)) for _ in range(10)]
        with suppress(ConnectionResetError), connect(running) as one_more:  # a reset may come before connect returns
            assert open_until(one_more, 3) is not None
        assert open_until(lines[0], 0.3) is None
    time.sleep(0.3)
    assert running.http("/healthz")[0] == 200  # the ten are gone, and counted as gone


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
async def test_websockets_are_not_counted(start_fake: StartServer, server: str) -> None:
    edge_server = start_fake(SERVER=server, MAX_SOCKETS_PER_ADDRESS="3")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(edge_server.ws_url, edge_server.api_key)) for _ in range(6)]
        for one in clients:
            assert (await one.ask("ping"))["type"] == "pong"


def test_addresses_are_counted_by_network() -> None:
    assert network_of("203.0.113.9") == "203.0.113.9"
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::") != network_of("2001:db8:1:3::")
    assert network_of("::ffff:203.0.113.9") == "203.0.113.9"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("unix") == "unix"


def test_the_socket_counter_forgets_what_is_closed() -> None:
    counter = SocketCounter(2)
    assert [counter.add("a") for _ in range(3)] == [True, True, False]
    assert counter.add("b")
    counter.remove("a")
    assert counter.add("a")
    for network in ("a", "a", "b"):
        counter.remove(network)
    assert not counter._open
    assert all(SocketCounter(0).add("a") for _ in range(1000))


def test_every_path_has_a_limit() -> None:
    assert max_body_bytes("/admin/personas/persona/import/") == 11 * MIB
    assert max_body_bytes("/v1/chat/completions") == MIB
    assert max_body_bytes("/admin") == max_body_bytes("*") == max_body_bytes("http://x/admin/") == 64 * KIB

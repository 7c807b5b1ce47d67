"""F13's cousin: WebSockets that never show a valid key, on both ASGI servers, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from base64 import b64encode
from contextlib import AsyncExitStack, ExitStack, suppress

import pytest
from websockets.exceptions import InvalidStatus

from accounts.keys import mint
from tests.security.conftest import SERVERS, StartServer
from tests.security.raw_socket import status
from tests.server import YapServer
from tests.wsclient import Client, client

LIMIT = 3
ATTEMPTS = 20
CLIENTS = (  # the address that fills its share, the same network once more, another network
    ("203.0.113.9", "203.0.113.9", "203.0.113.10"),
    ("2001:db8:1:2::9", "2001:db8:1:2:ffff::1", "2001:db8:1:3::9"),
)


class Stranger:
    """Clients with a wrong key that answer no close frame."""

    def __init__(self, server: YapServer) -> None:
        self._server = server
        self.lines = ExitStack()

    def handshake(self, forwarded: str = "", path: str = "/ws") -> tuple[socket.socket, int]:
        """Return the socket and the status of the answer to a handshake."""
        line = self.lines.enter_context(socket.create_connection(("127.0.0.1", self._server.port), 10))
        line.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {b64encode(bytes(16)).decode()}\r\n"
            f"X-API-Key: {mint().full}\r\n"
            f"X-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.1, {forwarded}\r\n\r\n".encode()
        )
        received = b""
        while b"\r\n\r\n" not in received:
            received += line.recv(4096)
        return line, status(received)

    def fill(self, client: str, same_network: str, other: str) -> list[int]:
        """Fill the share of a client; return the statuses of two more handshakes, and of another network's."""
        with self.lines:
            held = [self.handshake(client)[1] for _ in range(LIMIT)]
            more = [self.handshake(same_network, path)[1] for path in ("/ws", "/v1/responses")]
            found = [*more, self.handshake(other)[1]]
        self.lines = ExitStack()
        return found if held == [101] * LIMIT else []  # sockets of the attempt before may still count


@pytest.mark.parametrize("name", SERVERS)
async def test_an_address_holds_a_bounded_number_of_websockets_without_a_key(
    start_fake: StartServer, name: str
) -> None:
    server = start_fake(SERVER=name, MAX_SOCKETS_PER_ADDRESS=str(LIMIT), TRUST_PROXY="1")
    stranger = Stranger(server)

    def attempt() -> None:
        for addresses in CLIENTS:
            # Daphne cuts a client that answers no close frame after a second, so a slow machine needs another attempt.
            found = [stranger.fill(*addresses) for _ in range(ATTEMPTS)]
            assert [429, 429, 101] in found, found

    await asyncio.to_thread(attempt)
    # Sockets that are gone count no longer, and those with a valid key do not count.
    async with AsyncExitStack() as stack:
        headers = {"X-API-Key": server.api_key, "X-Forwarded-For": CLIENTS[0][0], "X-Forwarded-Proto": "https"}
        lines: list[Client] = []
        async with asyncio.timeout(20):
            while len(lines) < 2 * LIMIT:
                with suppress(InvalidStatus):
                    lines.append(await stack.enter_async_context(client(server.ws_url, additional_headers=headers)))
                    assert (await lines[-1].ask("ping"))["type"] == "pong"
        for line in lines:
            assert (await line.ask("ping"))["type"] == "pong"
    assert "Traceback" not in server.tail(200)


def test_a_refused_client_that_answers_no_close_frame_is_cut(edge_server: YapServer) -> None:
    line, answer = Stranger(edge_server).handshake()
    with line:
        assert answer == 101
        line.settimeout(13)
        began = time.monotonic()
        with suppress(ConnectionError):
            while line.recv(4096):
                pass
        assert time.monotonic() - began < 12

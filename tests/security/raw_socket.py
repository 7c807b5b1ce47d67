"""An HTTP client that sends exactly the bytes it is given."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from tests.server import YapServer


def connect(server: YapServer, timeout: float = 10.0) -> socket.socket:
    """A TCP connection to the server."""
    return socket.create_connection(("127.0.0.1", server.port), timeout)


def read_answer(line: socket.socket, timeout: float = 10.0) -> bytes:
    """What arrives until the connection ends, or the answer's headers and announced body are complete."""
    line.settimeout(timeout)
    received = b""
    with suppress(ConnectionError, TimeoutError):
        while True:
            head, found, body = received.partition(b"\r\n\r\n")
            if found:
                length = [row for row in head.lower().split(b"\r\n") if row.startswith(b"content-length:")]
                if length and len(body) >= int(length[0].partition(b":")[2]):
                    break
            chunk = line.recv(65536)
            if not chunk:
                break
            received += chunk
    return received


def exchange(server: YapServer, *parts: bytes, timeout: float = 10.0) -> bytes:
    """The whole answer to a request that is sent in these parts."""
    with connect(server, timeout) as line:
        with suppress(ConnectionError):
            for part in parts:
                line.sendall(part)
        return read_answer(line, timeout)


def status(answer: bytes) -> int:
    """The status code of an answer; 0 where the connection ended without one."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


def open_until(line: socket.socket, seconds: float, feed: bytes = b"", every: float = 0.5) -> float | None:
    """Seconds after which the server closed this connection, fed ``feed`` now and then; None: still open."""
    began = time.monotonic()
    line.settimeout(every)
    while (now := time.monotonic() - began) < seconds:
        try:
            if feed:
                line.sendall(feed)
            if not line.recv(65536):
                return now
        except TimeoutError:
            continue
        except ConnectionError:
            return now
    return None

"""Opens a connection, or raises the reason for a failure."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI

from yapclient.address import Server
from yapclient.backoff import ONCE, Backoff
from yapclient.connection import Connection
from yapclient.errors import (
    CODE_OF_CLOSE,
    RETRYABLE,
    ConnectionLost,
    ConnectionRefused,
    NoServer,
    ReplyTimeout,
    RequestRefused,
    YapError,
)

OPEN_TIMEOUT_S = 10.0
REPLY_TIMEOUT_S = 60.0
_MAX_FRAME = 16 * 1024 * 1024


async def _open_once(server: Server, timeout: float, open_timeout: float) -> Connection:
    try:
        line = await open_socket(
            server.url,
            additional_headers=server.headers,
            open_timeout=open_timeout,
            close_timeout=2.0,
            max_size=_MAX_FRAME,
            compression=None,
            proxy=None if server.is_local else True,
        )
    except InvalidStatus as error:
        raise NoServer(server.url, f"HTTP {error.response.status_code} instead of a WebSocket") from None
    except InvalidMessage:
        raise NoServer(server.url, "another service answers at this address") from None
    except (InvalidHandshake, InvalidURI) as error:
        raise NoServer(server.url, str(error)) from None
    except (TimeoutError, asyncio.TimeoutError):
        raise NoServer(server.url, f"no answer within {open_timeout:g} s") from None
    except OSError as error:
        raise NoServer(server.url, _why(error)) from None
    connection = Connection(server, line, timeout)
    try:
        # A refusal follows the handshake; a pong proves that the server has accepted the connection.
        await connection.ping()
    except RequestRefused as error:
        if connection.lost is None and error.code not in RETRYABLE and error.code not in CODE_OF_CLOSE.values():
            return connection  # a server without ping
        await _hang_up(connection)
        raise _refusal(connection) from None
    except ReplyTimeout:
        await _hang_up(connection)
        raise
    except ConnectionLost:
        raise _refusal(connection) from None
    return connection


def _why(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "unknown host"
    if error.errno == errno.ECONNREFUSED or "Connect call failed" in str(error):
        return "no server listens at this address"
    why = error.strerror or str(error) or type(error).__name__
    return why[:1].lower() + why[1:]


async def _hang_up(connection: Connection) -> None:
    await asyncio.wait({connection.reader}, timeout=1.0)  # the server sends the reason, then closes
    await connection.line.close()
    await connection.reader


def _refusal(connection: Connection) -> YapError:
    error, close_code = connection.last_error, connection.line.close_code
    if error is not None:
        return ConnectionRefused(
            connection.server.url,
            error.code,
            error.message,
            retry_in=error.retry_in,
            close_code=close_code,
            capacity=error.capacity,
        )
    if close_code in CODE_OF_CLOSE:
        reason = connection.line.close_reason or ""
        return ConnectionRefused(connection.server.url, CODE_OF_CLOSE[close_code], reason, close_code=close_code)
    return connection.lost or ConnectionLost(connection.server.url, close_code)


async def open_connection(
    server: Server | str,
    api_key: str | None = None,
    *,
    timeout: float = REPLY_TIMEOUT_S,
    open_timeout: float = OPEN_TIMEOUT_S,
    backoff: Backoff = ONCE,
    on_wait: Callable[[YapError, float], None] | None = None,
) -> Connection:
    """Connect to a server.

    Args:
        server: a server or its address.
        api_key: the key, if `server` is an address.
        timeout: longest wait for the next frame of a turn, seconds.
        open_timeout: longest duration of the handshake, seconds.
        backoff: retries while the server is full, starting or draining.
        on_wait: called before each wait with the reason and the seconds.

    Raises:
        ConnectionRefused: the server refused the connection.
        NoServer: no server answers at the address.
        ConnectionLost: the connection ended during the handshake.
    """
    address = server if isinstance(server, Server) else Server.parse(server, api_key)
    failures = 0
    while True:
        try:
            return await _open_once(address, timeout, open_timeout)
        except ConnectionRefused as error:
            failures += 1
            if not error.retryable or backoff.exhausted(failures):
                raise
            problem: YapError = error
            seconds = backoff.wait(failures, error.retry_in)
        except (NoServer, ConnectionLost) as error:
            failures += 1
            if not backoff.without_server or backoff.exhausted(failures):
                raise
            problem = error
            seconds = backoff.wait(failures)
        if on_wait is not None:
            on_wait(problem, seconds)
        await asyncio.sleep(seconds)


@contextlib.asynccontextmanager
async def connect(server: Server | str, api_key: str | None = None, **options: Any) -> AsyncIterator[Connection]:
    """Open a connection as an async context manager; closes it at the end. Options as in :func:`open_connection`."""
    connection = await open_connection(server, api_key, **options)
    try:
        yield connection
    finally:
        await connection.close()

"""The edge of a real server: admission, hostile clients and the log."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import socket
import struct
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.server import YapServer
from tests.wsclient import Client, client

pytestmark = pytest.mark.engine

MIB = 1024 * 1024


async def _until(condition: Callable[[], bool], deadline_s: float = 5.0) -> float:
    """Measure the seconds until a condition holds; the condition is evaluated in a thread."""
    began = time.monotonic()
    while not await asyncio.to_thread(condition):
        assert time.monotonic() - began < deadline_s
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def _active(server: YapServer) -> int:
    active: int = server.status()["connections"]["active"]
    return active


# -- frames --------------------------------------------------------------------------------------------------------


async def test_bad_frames_are_answered_and_the_connection_lives(tiny_server: YapServer) -> None:
    bad: list[str | bytes] = [
        "", "{", "[]", "null", "1", '"start"', "{}", '{"type": 5}', '{"type": ""}', "[" * 100_000, b"\x00\x01",
        b'{"type":"ping"}', "\x00", '{"type": "ping", "request_id": NaN}', '{"type":"ping","request_id":[]}',
        "x" * (MIB + 1),
        json.dumps({"type": "ping", "request_id": "x" * MIB}),
        json.dumps({"type": "ping", "request_id": "é" * MIB}, ensure_ascii=False),
    ]  # fmt: skip
    async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
        for frame in bad:
            await yap.line.send(frame)
            answer = await yap.receive()
            assert (answer["type"], answer["error_code"]) == ("error", "invalid_message"), frame[:40]
        just = {"type": "ping", "padding": "x" * (MIB - 40)}
        await yap.line.send(json.dumps(just))
        assert (await yap.receive())["type"] == "pong"
        # A message in two fragments is one message.
        await yap.line.send(iter(['{"type":', '"ping"}']))
        assert (await yap.receive())["type"] == "pong"


@pytest.mark.parametrize(
    ("message", "code"), [(b'{"type": "ping\xff"}', 1007), ("x" * (4 * MIB + 1), 1009)], ids=["not UTF-8", "4 MiB"]
)
async def test_frames_that_end_the_connection(tiny_server: YapServer, message: str | bytes, code: int) -> None:
    """Text that is not UTF-8 (RFC 6455, 8.1) and a message above the limit: a close frame with code and reason."""
    async with client(tiny_server.ws_url, tiny_server.api_key) as other:
        async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
            with suppress(ConnectionClosed):
                await yap.line.send(message, text=True)
            assert await yap.closed(10) == code
            assert yap.line.close_reason
        await _until(lambda: _active(tiny_server) == 1)
        assert (await other.ask("ping"))["type"] == "pong"


# -- keys ----------------------------------------------------------------------------------------------------------


async def _refused(server: YapServer, path: str = "", **options: Any) -> None:
    async with client(server.ws_url + path, **options) as yap:
        assert await yap.closed() == 1008
        (error,) = yap.seen
        assert error["error_code"] == "authentication_failed"


async def test_keys_come_in_four_ways_and_are_never_written_down(tiny_server: YapServer) -> None:
    key, wrong = tiny_server.api_key, "wR0ngKeyThatNobodyMade42"
    made = await asyncio.to_thread(tiny_server.manage, "createkey", "edges", "--max-out", "5")
    revoked = await asyncio.to_thread(tiny_server.manage, "createkey", "edges revoked")
    ways: list[tuple[str, dict[str, object]]] = [
        ("", {"key": key}),
        ("", {"key": made}),
        ("", {"additional_headers": {"Authorization": f"Bearer {key}"}}),
        (f"?api_key={key}", {}),
        (f"?api_key={key}", {"key": key}),
        ("", {"subprotocols": ["yap.v1", f"yap.key.{key}"]}),
    ]
    for path, options in ways:
        async with client(tiny_server.ws_url + path, **options) as yap:  # type: ignore[arg-type]
            assert (await yap.ask("ping"))["type"] == "pong"
            assert yap.line.subprotocol == ("yap.v1" if "subprotocols" in options else None)
    await _refused(tiny_server)
    await _refused(tiny_server, key=wrong)
    await _refused(tiny_server, f"?api_key={wrong}")
    await _refused(tiny_server, f"?api_key={wrong}", key=key)
    await _refused(tiny_server, subprotocols=["yap.v1", f"yap.key.{wrong}"])

    async with client(tiny_server.ws_url, made) as yap:
        assert (await yap.say("Hello")).usage["completion_tokens"] == 5

    # Revoked by a command in another process: open connections get an error, and new ones are refused.
    async with client(tiny_server.ws_url, revoked) as yap:
        await yap.start("Hello")
        prefix = revoked.split("_")[1]
        await asyncio.to_thread(tiny_server.manage, "revokekey", prefix)
        assert await yap.closed(10) == 1008
        assert yap.seen[-1]["error_code"] == "key_revoked"
    await _refused(tiny_server, key=revoked)

    for path in ("/status", f"/status?api_key={wrong}", f"/nowhere?api_key={key}"):
        assert tiny_server.http(path, key=None)[0] in (401, 404)
    assert tiny_server.http(f"/status?api_key={key}", key=None)[0] == 200
    log = tiny_server.log.read_text()
    for secret in (key, wrong, made, revoked):
        assert secret not in log


# -- connection slots-----------------------------------------------------------------------------------------------


async def test_a_storm_of_connections(tiny_server: YapServer) -> None:
    """Far more connections than slots: the surplus is refused with a reason, and all slots become free again."""
    places, storm = tiny_server.status()["connections"]["max"], 40

    async def come(end: asyncio.Event) -> dict[str, object] | None:
        async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
            await yap.send("ping")
            frame = await yap.receive()
            if frame["type"] == "pong":
                await end.wait()
                return None
            assert await yap.closed() == 1013
            return frame

    end = asyncio.Event()
    guests = [asyncio.create_task(come(end)) for _ in range(storm)]
    while sum(guest.done() for guest in guests) < storm - places:
        await asyncio.wait([guest for guest in guests if not guest.done()], return_when=asyncio.FIRST_COMPLETED)
    assert tiny_server.status()["connections"] == {
        "active": places, "max": places, "available": 0, "at_capacity": True,
    }  # fmt: skip
    end.set()
    refusals = [frame for frame in await asyncio.gather(*guests) if frame is not None]
    assert len(refusals) == storm - places
    for frame in refusals:
        assert frame["error_code"] == "server_at_capacity"
        assert frame["capacity"] == {"active": places, "max": places, "available": 0, "at_capacity": True}
    await _until(lambda: _active(tiny_server) == 0)
    async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
        assert (await yap.ask("ping"))["type"] == "pong"


async def test_a_place_that_comes_free_is_given_to_who_waits(tiny_server: YapServer) -> None:
    places = tiny_server.status()["connections"]["max"]
    async with AsyncExitStack() as stack:
        for _ in range(places):
            guest = await stack.enter_async_context(client(tiny_server.ws_url, tiny_server.api_key))
            assert (await guest.ask("ping"))["type"] == "pong"
        late = await stack.enter_async_context(client(tiny_server.ws_url, tiny_server.api_key))
        await late.send("ping")
        guest.vanish()
        assert (await late.receive())["type"] == "pong"
    await _until(lambda: _active(tiny_server) == 0)


# -- a client that does not read -----------------------------------------------------------------------------------


class DeafClient:
    """A hand-written WebSocket client that never reads, so that all buffers between it and the server fill."""

    def __init__(self, server: YapServer) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(30)
        self._socket.connect(("127.0.0.1", server.port))
        nonce = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\nX-API-Key: {server.api_key}\r\n\r\n".encode()
        )
        assert self._socket.recv(12) == b"HTTP/1.1 101"

    def shout(self, text: str) -> None:
        """Send one text frame.

        Raises:
            OSError: the server has closed the connection.
        """
        data = text.encode()
        self._socket.sendall(b"\x81\xfe" + struct.pack("!H", len(data)) + b"\0\0\0\0" + data)

    def shout_until_cut_off(self, text: str, limit: int) -> int:
        """Send until the server closes; returns the number of bytes."""
        sent = 0
        try:
            while sent < limit:
                self.shout(text)
                sent += len(text)
        except OSError:
            return sent
        raise AssertionError(f"still not cut off after {sent} bytes")

    def unsent_bytes(self) -> int:
        """Return the bytes in the kernel's send queue on the server's side."""
        mine, theirs = (f"{name[1]:04X}" for name in (self._socket.getsockname(), self._socket.getpeername()))
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, _, queues, *_ = line.split()
            if local.endswith(f":{theirs}") and remote.endswith(f":{mine}"):
                return int(queues.partition(":")[0], 16)
        raise AssertionError("the server has hung up")

    def shout_until_the_kernel_is_full(self, text: str) -> None:
        """Send until answers no longer reach the kernel and wait in the server."""
        waiting = 0
        while waiting < 3:
            before, until = self.unsent_bytes(), time.monotonic() + 1
            self.shout(text)
            while (full := self.unsent_bytes() < before + len(text) // 2) and time.monotonic() < until:
                time.sleep(0.005)
            waiting = waiting + 1 if full else 0

    def close(self) -> None:
        self._socket.close()


async def test_a_client_that_never_reads_is_cut_off(tiny_server: YapServer) -> None:
    """The client reads no answer. The server's memory stays constant and other clients are unaffected."""
    async with client(tiny_server.ws_url, tiny_server.api_key) as other:
        await other.say("Hello")
        before = tiny_server.resident_bytes()
        ping = json.dumps({"type": "ping", "request_id": "x" * 32_000})
        deaf = await asyncio.to_thread(DeafClient, tiny_server)
        try:
            flood = asyncio.create_task(asyncio.to_thread(deaf.shout_until_cut_off, ping, 400 * MIB))
            turn = await other.say("Hello again")
            assert turn.usage["finish_reason"] in ("length", "stop")
            sent = await asyncio.wait_for(flood, 60)
        finally:
            deaf.close()
        grown = tiny_server.resident_bytes() - before
        print(f"cut off after {sent / MIB:.1f} MiB of pings; memory grew by {grown / MIB:.1f} MiB")
        assert grown < 16 * MIB
        await _until(lambda: _active(tiny_server) == 1)
        assert (await other.ask("ping"))["type"] == "pong"


# -- the log -------------------------------------------------------------------------------------------------------


async def _opened(server: YapServer, yap: Client) -> str:
    await yap.ask("ping")
    return str(re.findall(r"open key=\S+ conn=(\w+)", server.log.read_text())[-1])


async def test_the_log_has_a_line_for_what_happened_and_none_of_what_was_said(tiny_server: YapServer) -> None:
    async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
        name = await _opened(tiny_server, yap)
        turn = await yap.say("A word that is nowhere else: quokka.", session_id="the log\n/1")
        await yap.start("And another: numbat.")
        await yap.until("token")
        await yap.send("cancel")
        await yap.until("done")
    await _until(lambda: f"close key=env conn={name}" in tiny_server.log.read_text())
    log = tiny_server.log.read_text()
    lines = [line.partition(" INFO ")[2] for line in log.splitlines() if f"conn={name}" in line]
    assert len(lines) == 4
    opened, first, second, closed = lines
    assert re.search(rf"yap.connection open key=env conn={name} active=1$", opened)
    usage = turn.usage
    assert re.search(
        rf"turn key=env conn={name} session=the\?log\?\?1 turn=1 persona=- tool=(no|yes) tool_ms={usage['tool_ms']} "
        rf"ttft_ms={usage['ttft_ms']} total_ms={usage['total_ms']} tokens={usage['prompt_tokens']} "
        rf"cached={usage['cached_tokens']} out={usage['completion_tokens']} suppressed={usage['suppressed']} "
        rf"ended={usage['finish_reason']}$",
        first,
    )
    assert re.search(r"turn=2 .* ended=cancel$", second)
    assert re.search(rf"close key=env conn={name} after_s=\d+\.\d turns=2$", closed)
    assert "quokka" not in log
    assert "numbat" not in log
    assert turn.text[:40] not in log
    assert tiny_server.api_key not in log
    assert "Traceback" not in log

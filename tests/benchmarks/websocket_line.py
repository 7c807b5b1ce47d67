"""Connections to Yap with a minimal WebSocket client, because a complete client costs more than the measured server.

No compression and no fragmented frames; the server's frames are not masked.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from abc import abstractmethod
from collections.abc import Mapping
from time import perf_counter
from typing import Any, ClassVar

from tests.benchmarks.lines import PATIENCE_S, Line
from tests.benchmarks.prompts import Prompt

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA


def _frame(opcode: int, payload: bytes) -> bytes:
    """Build a client frame with a zero mask, so the payload is unchanged."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload


def text_frame(payload: bytes) -> bytes:
    """Build a client frame of text."""
    return _frame(_TEXT, payload)


_CANCEL = text_frame(b'{"type":"cancel"}')
_PING_FRAME = text_frame(b'{"type":"ping"}')


class MinimalWebSocket(Line, asyncio.Protocol):
    """One WebSocket. A subclass names its path and the beginning of a frame with text, and reads the other frames.

    Args:
        port: the server's port.
        key: the API key.
    """

    path: ClassVar[str]
    content: ClassVar[bytes]

    def __init__(self, port: int, key: str) -> None:
        super().__init__()
        self._port, self._key = port, key
        self._transport: Any = None
        self._buffer = b""
        self._upgraded: asyncio.Future[None] | None = None
        self._pong: asyncio.Future[dict[str, Any]] | None = None
        self.closed = False
        self.last_error: str | None = None

    @abstractmethod
    def _message(self, message: dict[str, Any], now: float) -> None:
        """Read a frame that is not content."""

    async def open(self) -> None:
        if self._transport is not None:
            return
        loop = asyncio.get_running_loop()
        self._upgraded = loop.create_future()
        self._transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        nonce = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\nX-API-Key: {self._key}\r\n\r\n".encode()
        )
        async with asyncio.timeout(PATIENCE_S):
            await self._upgraded

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        buffer = self._buffer + data if self._buffer else data
        at, end, content = 0, len(buffer), self.content
        if self._upgraded is not None and not self._upgraded.done():
            at = self._upgrade(buffer)
        while end - at >= 2:
            size, start = buffer[at + 1], at + 2
            if size > 125:
                start += 2 if size == 126 else 8
                if start > end:
                    break
                size = int.from_bytes(buffer[at + 2 : start], "big")
            if start + size > end:
                break
            if buffer.startswith(content, start):
                self._content(now)
            else:
                self._other(buffer[at] & 0xF, buffer[start : start + size], now)
            at = start + size
        self._buffer = buffer[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        error = ConnectionError(f"the server closed the connection ({exc or self.last_error or 'no reason'})")
        for waiter in (self._upgraded, self._pong):
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
        if self._transport is not None:
            self._end(perf_counter(), str(error))

    def _upgrade(self, buffer: bytes) -> int:
        head, found, _ = buffer.partition(b"\r\n\r\n")
        assert self._upgraded is not None
        if not found:
            return 0
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            self._upgraded.set_exception(ConnectionError(head.decode(errors="replace")))
        else:
            self._upgraded.set_result(None)
        return len(head) + 4

    def _other(self, opcode: int, payload: bytes, now: float) -> None:
        if opcode == _PING:
            self._transport.write(_frame(_PONG, payload))
        if opcode != _TEXT:
            return
        self._message(json.loads(payload), now)


class WebSocketLine(MinimalWebSocket):
    """One connection to `/ws`. Every turn is a session of its own unless :meth:`say` gets a `session`.

    Args:
        port: the server's port.
        sampling: the overrides of each turn.
        key: the API key.
    """

    path = "/ws"
    content = b'{"type":"token"'

    def __init__(self, port: int, sampling: Mapping[str, float], key: str) -> None:
        super().__init__(port, key)
        self._sampling = sampling
        self._sessions = 0

    async def admitted(self) -> str:
        """After :meth:`open`: `pong` if the server accepted the connection, else the error code."""
        self._pong = asyncio.get_running_loop().create_future()
        if self.last_error is None:
            self._transport.write(_PING_FRAME)
            async with asyncio.timeout(PATIENCE_S):
                await self._pong
        return self.last_error or "pong"

    async def say(self, prompt: Prompt, *, session: str | None = None, **more: Any) -> None:
        await self.open()
        self._sessions += 1
        message = {
            "type": "start",
            "session_id": session or f"s{self._sessions}",
            "gender": "female",
            "personality": "calm",
            "chat_prompt": prompt.persona,
            "user_utterance": prompt.utterance,
            "sampling": self._sampling,
        }
        frame = _frame(_TEXT, json.dumps(message).encode())
        self._begin(perf_counter())
        self._transport.write(frame)

    def cancel(self) -> None:
        self.timeline.cancelled = perf_counter()
        self._transport.write(_CANCEL)

    def _message(self, message: dict[str, Any], now: float) -> None:
        if message["type"] == "done" and "turn" in message:  # a `done` without a turn answers a late cancel
            if usage := message.get("usage"):
                self.timeline.tokens = usage["completion_tokens"]
                self.timeline.prompt_tokens, self.timeline.cached_tokens = (
                    usage["prompt_tokens"],
                    usage["cached_tokens"],
                )
            self._end(now)
        elif message["type"] == "error":
            self.last_error = message["error_code"]
            self._end(now, f"{message['error_code']}: {message['message']}")
        if message["type"] in ("pong", "error"):
            self._wake_pong(message)

    def _wake_pong(self, message: dict[str, Any]) -> None:
        if self._pong is not None and not self._pong.done():
            self._pong.set_result(message)

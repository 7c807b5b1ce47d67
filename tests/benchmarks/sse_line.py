"""A connection that streams chat completions, to `vllm serve` or to Yap's `/v1`: HTTP/1.1 with a minimal parser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from tests.benchmarks.lines import PATIENCE_S, Line
from tests.benchmarks.prompts import Prompt

_CONTENT, _EMPTY, _USAGE, _DONE = b'"content":"', b'"content":""', b'"usage":{', b"[DONE]"


class SseLine(Line, asyncio.Protocol):
    """One connection, kept from turn to turn; a cancelled turn closes it, and the next :meth:`open` makes another."""

    def __init__(self, port: int, model: str, sampling: Mapping[str, Any], key: str | None = None) -> None:
        super().__init__()
        self._port = port
        self._authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._fixed = {"model": model, "stream": True, "stream_options": {"include_usage": True}, **sampling}
        self._transport: Any = None
        self._buffer = b""

    async def open(self) -> None:
        if self._transport is None:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(PATIENCE_S):
                self._transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self._port)

    async def say(self, prompt: Prompt, **more: Any) -> None:
        await self.open()
        messages = [{"role": "system", "content": prompt.persona}, {"role": "user", "content": prompt.utterance}]
        body = json.dumps({**self._fixed, "messages": messages}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"{self._authorization}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        request, self._buffer = head.encode() + body, b""
        self._begin(perf_counter())
        self._transport.write(request)

    def cancel(self) -> None:
        """Close the connection; HTTP/1.1 has no other cancel."""
        self.timeline.cancelled = perf_counter()
        transport, self._transport = self._transport, None
        transport.abort()
        self._end(perf_counter())

    async def close(self) -> None:
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.abort()

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        *events, self._buffer = (self._buffer + data).split(b"\n\n")
        for event in events:
            if _CONTENT in event and _EMPTY not in event:
                self._content(now)
            elif _USAGE in event and b'"choices":[]' in event:
                usage = json.loads(event[event.index(b"data: ") + 6 :])["usage"]
                self.timeline.tokens, self.timeline.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
            elif _DONE in event:
                self._end(now)
        if b"HTTP/1.1 4" in self._buffer[:16] or b"HTTP/1.1 5" in self._buffer[:16]:
            self._end(now, self._buffer.decode(errors="replace"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self._end(perf_counter(), f"the server closed the connection ({exc or 'no reason'})")

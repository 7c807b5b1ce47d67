"""Text on its way to the client: sent at once, or coalesced for a few milliseconds into fewer frames."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress


class Outbox:
    """Sends text in order and remembers the text that was sent.

    Args:
        send: sends one piece of text.
        delay_s: 0 sends every piece at once. Otherwise pieces that arrive within ``delay_s`` seconds of the first one
            leave together.
    """

    def __init__(self, send: Callable[[str], Awaitable[None]], delay_s: float) -> None:
        self._send = send
        self._delay_s = delay_s
        self._sent: list[str] = []
        self._waiting: list[str] = []
        self._timer: asyncio.Task[None] | None = None
        self._flush_now = asyncio.Event()
        self._closed = False

    def sent(self) -> str:
        """Return all text that was handed to ``send``."""
        return "".join(self._sent)

    async def put(self, text: str) -> None:
        """Send ``text`` now or after the delay. Empty text is ignored."""
        if not text or self._closed:
            return
        if not self._delay_s:
            self._sent.append(text)
            await self._send(text)
            return
        self._waiting.append(text)
        if self._timer is None:
            self._timer = asyncio.create_task(self._send_later())

    async def flush(self) -> None:
        """Send the coalesced text now. A delayed send that has begun ends first, so the order holds."""
        if self._timer is None:
            await self._send_waiting()
        else:
            self._flush_now.set()
            await asyncio.wait({self._timer})

    def close(self) -> None:
        """Drop the coalesced text and stop the delayed send. Nothing is sent afterwards."""
        self._closed = True
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _send_later(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._delay_s):
                await self._flush_now.wait()
        while self._waiting:  # text may arrive while a send waits for a slow client
            await self._send_waiting()
        self._flush_now.clear()
        self._timer = None

    async def _send_waiting(self) -> None:
        text = "".join(self._waiting)
        self._waiting.clear()
        if text and not self._closed:
            self._sent.append(text)
            await self._send(text)

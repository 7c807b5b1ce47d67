"""Text on its way out: at once, or gathered for a few milliseconds where the operator asks for fewer frames."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Outbox:
    """Sends text in order by ``send``. With ``delay`` 0 every piece leaves at once; else pieces that come within
    ``delay`` seconds of the first leave together. Remembers what was sent."""

    def __init__(self, send: Callable[[str], Awaitable[None]], delay: float) -> None:
        self._send = send
        self._delay = delay
        self._sent: list[str] = []
        self._gathered: list[str] = []
        self._timer: asyncio.Task[None] | None = None

    def sent(self) -> str:
        """Everything that has left."""
        return "".join(self._sent)

    async def put(self, text: str) -> None:
        """Send ``text`` now or soon; empty text is nothing."""
        if not text:
            return
        if not self._delay:
            self._sent.append(text)
            await self._send(text)
            return
        self._gathered.append(text)
        if self._timer is None:
            self._timer = asyncio.create_task(self._later())

    async def flush(self) -> None:
        """Send what was gathered."""
        timer, self._timer = self._timer, None
        if timer is not None and timer is not asyncio.current_task():
            timer.cancel()
        text = "".join(self._gathered)
        self._gathered.clear()
        if text:
            self._sent.append(text)
            await self._send(text)

    def close(self) -> None:
        """Forget what was gathered."""
        self._gathered.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _later(self) -> None:
        await asyncio.sleep(self._delay)
        await self.flush()

"""A connection to a measured system: start a turn, read the reply, cancel. All systems have the same interface."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.prompts import Prompt

PATIENCE_S = 60.0


@dataclass(slots=True)
class Timeline:
    """One turn, in seconds of one clock. `arrivals` are the content frames; `late` counts frames after the end."""

    sent: float
    arrivals: list[float] = field(default_factory=list)
    cancelled: float | None = None
    ended: float | None = None
    tokens: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    late: int = 0
    error: str | None = None


class Line(ABC):
    """One client with one turn at a time. `reply_tokens` is the reply length requested from the systems."""

    def __init__(self) -> None:
        self.timeline = Timeline(0.0)
        self._awaited = 0
        self._arrived: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None

    @abstractmethod
    async def open(self) -> None:
        """Connect if the system needs a connection and none is open."""

    @abstractmethod
    async def say(self, prompt: Prompt, **more: Any) -> None:
        """Start a turn; preparation happens before the clock starts."""

    @abstractmethod
    def cancel(self) -> None:
        """Cancel the running turn; await its end with :meth:`ended`."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connection."""

    async def arrived(self, frames: int) -> None:
        """Wait until `count` content frames arrived or the turn ended."""
        if len(self.timeline.arrivals) < frames and self.timeline.ended is None:
            self._awaited, self._arrived = frames, asyncio.get_running_loop().create_future()
            async with asyncio.timeout(PATIENCE_S):
                await self._arrived

    async def ended(self) -> Timeline:
        """Wait for the end of the turn.

        Raises:
            RuntimeError: the turn failed.
        """
        if self.timeline.ended is None:
            self._ended = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(PATIENCE_S):
                await self._ended
        if self.timeline.error is not None:
            raise RuntimeError(self.timeline.error)
        return self.timeline

    # -- called by the implementations ------------------------------------------------------------

    def _begin(self, now: float) -> None:
        self.timeline = Timeline(now)

    def _content(self, now: float) -> None:
        timeline = self.timeline
        if timeline.ended is not None:
            timeline.late += 1
            return
        timeline.arrivals.append(now)
        if len(timeline.arrivals) == self._awaited:
            self._wake(self._arrived)

    def _end(self, now: float, error: str | None = None) -> None:
        if self.timeline.ended is None:
            self.timeline.ended, self.timeline.error = now, error
            self._wake(self._arrived)
            self._wake(self._ended)

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

"""A line to one of the measured systems: say something, watch the reply come, cancel it. One shape for all of them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.prompts import Prompt

PATIENCE_S = 60.0


@dataclass(slots=True)
class Timeline:
    """One turn in seconds of one clock. ``arrivals`` are the content frames, a frame being what came in one piece;
    ``late`` counts frames that came after the end."""

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
    """One client. One turn at a time; ``reply_tokens`` is how long the systems were told to speak."""

    def __init__(self) -> None:
        self.timeline = Timeline(0.0)
        self._awaited = 0
        self._arrived: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None

    @abstractmethod
    async def open(self) -> None:
        """Connect, where that is needed and not done."""

    @abstractmethod
    async def say(self, prompt: Prompt, **more: Any) -> None:
        """Begin a turn; what is made ready for it is made before the clock starts."""

    @abstractmethod
    def cancel(self) -> None:
        """Cancel the running turn; its end is awaited by :meth:`ended`."""

    @abstractmethod
    async def close(self) -> None:
        """Leave."""

    async def arrived(self, frames: int) -> None:
        """Until so many content frames came, or the turn has ended."""
        if len(self.timeline.arrivals) < frames and self.timeline.ended is None:
            self._awaited, self._arrived = frames, asyncio.get_running_loop().create_future()
            async with asyncio.timeout(PATIENCE_S):
                await self._arrived

    async def ended(self) -> Timeline:
        """The turn, when it is over. Raises RuntimeError where it did not go well."""
        if self.timeline.ended is None:
            self._ended = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(PATIENCE_S):
                await self._ended
        if self.timeline.error is not None:
            raise RuntimeError(self.timeline.error)
        return self.timeline

    # -- what the lines themselves call ------------------------------------------------------------

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

"""Connections that wait for a slot: one question about all of them at a time, instead of one question for each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

POLL_S = 0.02
"""Seconds between two questions while nothing new happens in this process."""
BATCH = 128
"""Largest number of requests in one question."""

T = TypeVar("T")


class SlotRequest(Generic[T]):
    """One connection that waits.

    Attributes:
        subject: What the question is about; opaque here.
        deadline: By the loop's clock, seconds. A request is asked about at least once.
        answer: Whether the slot was granted. Cancelled: the caller has left.
    """

    __slots__ = ("answer", "deadline", "subject")

    def __init__(self, subject: T, deadline: float) -> None:
        self.subject = subject
        self.deadline = deadline
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class SlotRequests(Generic[T]):
    """The queue of one process, in order of arrival.

    Two hundred simultaneous connections cost a few questions; with a question for each of them, and again every
    20 ms, they would keep the serving loop and Redis busy for as long as they wait.

    Args:
        ask: Gets subjects in order and returns whether each is granted. Must not raise.
        leave: Called with a subject that was granted after its caller has left.
    """

    def __init__(self, ask: Callable[[Sequence[T]], Awaitable[Sequence[bool]]], leave: Callable[[T], None]) -> None:
        self._ask = ask
        self._leave = leave
        self._waiting: list[SlotRequest[T]] = []
        self._task: asyncio.Task[None] | None = None
        self._changed: asyncio.Event | None = None

    async def wait(self, subject: T, timeout_s: float) -> bool:
        """Wait until a subject is granted. False: not within ``timeout_s`` seconds."""
        loop = asyncio.get_running_loop()
        request = SlotRequest(subject, loop.time() + timeout_s)
        self._waiting.append(request)
        self.changed()
        if self._task is None:
            self._task = loop.create_task(self._run(), name="slot requests")
        try:
            return await request.answer
        except asyncio.CancelledError:
            if not request.answer.cancelled() and request.answer.exception() is None and request.answer.result():
                self._leave(subject)  # granted in the same step of the loop
            raise

    def changed(self) -> None:
        """Ask soon: a slot of this process was released, or a request has arrived."""
        if self._changed is not None:
            self._changed.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        try:
            while self._waiting:
                self._changed.clear()
                asked = self._waiting[:]
                for place in range(0, len(asked), BATCH):
                    await self._ask_for(asked[place : place + BATCH])
                now = loop.time()
                for request in asked:
                    if not request.answer.done() and request.deadline <= now:
                        request.answer.set_result(False)
                self._waiting = [request for request in self._waiting if not request.answer.done()]
                if self._waiting:
                    nearest = min(request.deadline for request in self._waiting) - now
                    with suppress(TimeoutError):
                        async with asyncio.timeout(max(0.0, min(nearest, POLL_S * random.uniform(0.5, 1.5)))):  # nosec B311
                            await self._changed.wait()
        except Exception as error:
            for request in self._waiting:
                if not request.answer.done():
                    request.answer.set_exception(error)
            self._waiting.clear()
        finally:
            self._task = self._changed = None

    async def _ask_for(self, requests: Sequence[SlotRequest[T]]) -> None:
        open_ones = [request for request in requests if not request.answer.done()]
        if not open_ones:
            return
        for request, granted in zip(open_ones, await self._ask([one.subject for one in open_ones]), strict=True):
            if granted and request.answer.done():  # the caller has left meanwhile
                self._leave(request.subject)
            elif granted:
                request.answer.set_result(True)

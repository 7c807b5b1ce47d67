"""The outcome of work in a thread: its result on the event loop, and its error as one line."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future


async def outcome(future: Future[None]) -> None:
    """Wait for a thread's result; raises its error.

    A cancelled waiter leaves the thread running, and no other reader has to fetch the error.
    """
    here = asyncio.wrap_future(future)
    here.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait({here})
    here.result()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

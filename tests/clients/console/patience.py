"""Waiting as long as the server asks, and saying so."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from yapclient import Connection, RequestRefused, Turn

Answer = TypeVar("Answer")


async def patiently(attempt: Callable[[], Awaitable[Answer]]) -> tuple[Answer, int]:
    """Make the attempt, again after each limit that the server says how long to wait for.

    Returns its answer and how often a limit was waited for. Raises every other :class:`RequestRefused`.
    """
    waits = 0
    while True:
        try:
            return await attempt(), waits
        except RequestRefused as error:
            if error.retry_in is None:
                raise
            refused, seconds = error, error.retry_in
        print(f"{refused.code}: the server asks to wait {seconds:g} s …", file=sys.stderr, flush=True)
        await asyncio.sleep(seconds)
        waits += 1


async def ask(yap: Connection, text: str, **options: Any) -> Turn:
    """A turn to its end, said again after a rate limit."""
    turn, _ = await patiently(lambda: yap.turn(text, **options).finish())
    return turn

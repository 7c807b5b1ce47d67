"""Waiting for rate limits: as long as the server asks, with a message."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from yapclient import Connection, RequestRefused, Turn

Answer = TypeVar("Answer")


async def patiently(attempt: Callable[[], Awaitable[Answer]]) -> tuple[Answer, int]:
    """Call `attempt` until no rate limit refuses it.

    Returns:
        The result of `attempt`, and the number of waits.

    Raises:
        RequestRefused: a refusal without `retry_in`.
    """
    waits = 0
    while True:
        try:
            return await attempt(), waits
        except RequestRefused as error:
            if error.retry_in is None:
                raise
            refused, seconds = error, error.retry_in
        print(f"{refused.code}: waiting {seconds:g} s as the server asks …", file=sys.stderr, flush=True)
        await asyncio.sleep(seconds)
        waits += 1


async def ask(yap: Connection, text: str, **options: Any) -> Turn:
    """Run one turn to its end, again after a rate limit."""
    turn, _ = await patiently(lambda: yap.turn(text, **options).finish())
    return turn

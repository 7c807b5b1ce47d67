"""A send to a client that may not read: bounded in time, and without a timer where nothing waits."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any

SEND_TIMEOUT_S = 10.0
"""Close the connection if one send blocks longer than this (seconds)."""


async def send_in_time(sending: Coroutine[Any, Any, None]) -> None:
    """Await a send; raise ``TimeoutError`` after :data:`SEND_TIMEOUT_S`, where a client does not read.

    Nearly every send completes in its first step; a timer is set only for one that does not.
    """
    try:
        waiting = sending.send(None)
    except StopIteration:
        return
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await _resume(sending, waiting)


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, Any, None]:
    """Await a coroutine that has begun. ``waiting`` is what its first step yielded."""
    while True:
        try:
            try:
                value = yield waiting
            except BaseException as error:
                waiting = coroutine.throw(error)
            else:
                waiting = coroutine.send(value)
        except StopIteration:
            return

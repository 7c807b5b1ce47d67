"""Closes a connection without activity. One timer per connection; a frame only stores a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class IdleTimer:
    """Calls ``on_idle`` once, after ``timeout_s`` seconds without :meth:`touch` while nothing runs.

    Args:
        timeout_s: seconds.
        is_busy: True while a turn runs; a busy connection is not idle.
        on_idle: called on the serving loop.
    """

    def __init__(self, timeout_s: float, is_busy: Callable[[], bool], on_idle: Callable[[], None]) -> None:
        self._timeout_s = timeout_s
        self._is_busy = is_busy
        self._on_idle = on_idle
        self._active_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def touch(self) -> None:
        """Note activity now."""
        self._active_at = time.monotonic()

    def start(self) -> None:
        """Start the clock, or check it where the timer has fired."""
        left = self._active_at + self._timeout_s - time.monotonic()
        if self._is_busy():
            left = self._timeout_s
        if left <= 0:
            self._timer = None
            self._on_idle()
            return
        self._timer = asyncio.get_running_loop().call_later(left, self.start)

    def stop(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

"""Rolling windows: at most N events in any S seconds. One per connection and kind of message, in memory."""

from __future__ import annotations

from collections import deque

from accounts.callers import Window


class RollingWindow:
    """Counts admitted events. A refused event takes no slot; 0 in either part of ``window`` switches the window off.

    ``window`` may be replaced at any time and applies to the next event. At most ``window.limit`` times are stored.
    """

    __slots__ = ("_times", "window")

    def __init__(self, window: Window) -> None:
        self.window = window
        self._times: deque[float] = deque()

    def take(self, now: float) -> float:
        """Take a slot.

        Args:
            now: A monotonic clock, in seconds.

        Returns:
            0.0 where a slot was taken, else the seconds until one is free.
        """
        limit, seconds = self.window.limit, self.window.seconds
        if limit <= 0 or seconds <= 0:
            self._times.clear()
            return 0.0
        times = self._times
        while times and times[0] <= now - seconds:
            times.popleft()
        if len(times) >= limit:
            # After a limit was lowered, more than one slot has to expire first.
            return max(times[len(times) - limit] + seconds - now, 1e-3)
        times.append(now)
        return 0.0

    def give_back(self) -> None:
        """Return the slot that was taken last: another window refused its event."""
        if self._times:
            self._times.pop()

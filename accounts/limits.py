"""Rolling windows: at most so many events in any stretch of so many seconds. One per connection, in memory."""

from __future__ import annotations

from collections import deque

from accounts.callers import Window


class RollingWindow:
    """Counts what was let through; what was refused takes no slot. 0 in either part switches the window off.

    ``window`` may be replaced at any time and governs the next event; at most ``window.limit`` times are remembered.
    """

    __slots__ = ("_times", "window")

    def __init__(self, window: Window) -> None:
        self.window = window
        self._times: deque[float] = deque()

    def take(self, now: float) -> float:
        """0.0 and a slot taken, or the seconds until a slot is free. ``now`` is a monotonic clock in seconds."""
        limit, seconds = self.window.limit, self.window.seconds
        if limit <= 0 or seconds <= 0:
            self._times.clear()
            return 0.0
        times = self._times
        while times and times[0] <= now - seconds:
            times.popleft()
        if len(times) >= limit:
            # After a limit was lowered more than one slot has to fall free.
            return max(times[len(times) - limit] + seconds - now, 1e-3)
        times.append(now)
        return 0.0

    def give_back(self) -> None:
        """The event that took the last slot was refused after all, by another window."""
        if self._times:
            self._times.pop()

"""What a run says while it works: stage, layer and time left, one line at a time on stderr. Standard library only."""

from __future__ import annotations

import sys
import time


class Progress:
    """Lines of one run. Steps of a stage are shown at most every ``every`` seconds, but for the first and the last."""

    def __init__(self, name: str, every: float = 5.0) -> None:
        self._name = name
        self._every = every
        self._began = time.monotonic()
        self._stage_began = self._began
        self._shown = float("-inf")

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def stage(self, text: str) -> None:
        """Begin a stage."""
        self._stage_began = time.monotonic()
        self._shown = float("-inf")
        self._say(text)

    def step(self, text: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` equal steps of the stage are over."""
        now = time.monotonic()
        if now - self._shown < self._every and done < total:
            return
        self._shown = now
        left = (now - self._stage_began) / done * (total - done) if done else 0.0
        self._say(f"{text} {done} of {total}" + (f", about {_duration(left)} left" if 0 < done < total else ""))

    def _say(self, text: str) -> None:
        print(f"yap: [{self.seconds:.0f} s] {self._name}: {text}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

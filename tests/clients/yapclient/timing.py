"""Arrival times of the parts of a reply, measured at the client."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_THREE_WORDS = re.compile(r"\S+\s+\S+\s+\S+\s")
_SENTENCE = re.compile(r"""\S[.!?…。！？]+["'”’)\]*]*\s""")


@dataclass
class Timing:
    """Arrival times in seconds of `time.perf_counter`; None for an event that did not happen.

    A word or sentence counts as complete when more text follows it or the reply ends.
    """

    started: float
    toolcall: float | None = None
    first_token: float | None = None
    three_words: float | None = None
    first_sentence: float | None = None
    last_token: float | None = None
    done: float | None = None
    chunks: int = 0
    chars: int = 0
    gaps: list[float] = field(default_factory=list)
    _opening: str = ""

    def token(self, text: str, at: float) -> None:
        """Take a piece of the reply; `at` is its arrival in seconds."""
        if self.last_token is None:
            self.first_token = at
        else:
            self.gaps.append(at - self.last_token)
        self.last_token = at
        self.chunks += 1
        self.chars += len(text)
        if self.first_sentence is None or self.three_words is None:
            self._opening += text
            self._mark(self._opening, at)

    def end(self, at: float) -> None:
        """Take the last frame of the turn; `at` is its arrival in seconds."""
        self.done = at
        if self.last_token is not None:
            self._mark(self._opening + "\n", self.last_token)

    def _mark(self, text: str, at: float) -> None:
        if self.three_words is None and _THREE_WORDS.search(text):
            self.three_words = at
        if self.first_sentence is None and _SENTENCE.search(text):
            self.first_sentence = at

    def ms(self, moment: float | None, since: float | None = None) -> float | None:
        """Convert a moment to milliseconds since the message was sent.

        Args:
            moment: seconds, or None.
            since: another reference moment, seconds; None: the time of sending.

        Returns:
            Milliseconds, or None if `moment` is None.
        """
        start = self.started if since is None else since
        return None if moment is None else round((moment - start) * 1000, 1)

    @property
    def stream_ms(self) -> float | None:
        """Milliseconds from the first to the last token; None without tokens."""
        return self.ms(self.last_token, self.first_token) if self.first_token is not None else None

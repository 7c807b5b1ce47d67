"""Record of one turn in a load test."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from yapclient import Turn


@dataclass
class TurnRecord:
    """One turn.

    Times are in milliseconds since the *planned* start of the turn, so that a slow server or client cannot hide its
    delay (coordinated omission). `late_ms` is the part before the message was sent. `at_s` is the planned start, in
    seconds since the start of the test. `outcome` is ok, interrupted, refused or error; the last two have a `code`.
    """

    session: int
    turn: int
    at_s: float
    outcome: str
    code: str | None = None
    repeat: bool = False
    late_ms: float | None = None
    connect_ms: float | None = None
    first_token_ms: float | None = None
    first_sentence_ms: float | None = None
    tool_ms: float | None = None
    total_ms: float | None = None
    interrupt_ms: float | None = None
    chunks: int = 0
    tokens: int | None = None
    cached_tokens: int | None = None
    gaps_ms: list[float] = field(default_factory=list)

    def take(self, turn: Turn, meant: float) -> None:
        """Copy the times of a finished turn.

        Args:
            turn: the finished turn.
            meant: planned start, seconds of `time.perf_counter`.
        """
        timing, usage = turn.timing, turn.usage
        self.late_ms = timing.ms(timing.started, meant)
        self.first_token_ms = timing.ms(timing.first_token, meant)
        self.first_sentence_ms = timing.ms(timing.first_sentence, meant)
        self.tool_ms = timing.ms(timing.toolcall, meant)
        if self.outcome == "ok":
            self.total_ms = timing.ms(timing.done, meant)
        self.chunks = timing.chunks
        self.gaps_ms = [round(gap * 1000, 2) for gap in timing.gaps]
        self.tokens, self.cached_tokens = (
            value if isinstance(value, int) else None
            for value in (usage.get("completion_tokens"), usage.get("cached_tokens"))
        )

    def as_json(self) -> dict[str, Any]:
        """Return the record without `gaps_ms`; the summary holds the gaps."""
        return {key: value for key, value in asdict(self).items() if key != "gaps_ms" and value is not None}

"""What one turn of a load test came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from yapclient import Turn


@dataclass
class TurnRecord:
    """Times are milliseconds since the moment the turn was *meant* to begin, so that a server (or client) that falls
    behind cannot hide it; ``late_ms`` is how much of that passed before it was sent. ``at_s``: that moment, in seconds
    since the test began. ``outcome``: ok, interrupted, refused or error, the last two with their ``code``.
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
        """The times of a turn that is over; ``meant`` on ``time.perf_counter``'s clock."""
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
        """The record without its gaps, which are only kept summed up."""
        return {key: value for key, value in asdict(self).items() if key != "gaps_ms" and value is not None}

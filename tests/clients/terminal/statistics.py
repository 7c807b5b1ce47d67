"""Figures of the `/stats` command."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from console.output import ms
from yapclient import Turn


@dataclass
class Statistics:
    """Counts of one run of the client; times in milliseconds."""

    first_tokens: list[float] = field(default_factory=list)
    turns: int = 0
    interrupted: int = 0
    reply_tokens: int = 0
    last: str = ""

    def add(self, turn: Turn, interrupted: bool) -> None:
        """Count a finished turn."""
        timing, usage = turn.timing, turn.usage
        self.turns += 1
        self.interrupted += interrupted
        first = timing.ms(timing.first_token)
        if first is not None:
            self.first_tokens.append(first)
        tokens = usage.get("completion_tokens", timing.chunks)
        self.reply_tokens += tokens if isinstance(tokens, int) else 0
        figures = [f"first token {ms(first)}", f"total {ms(timing.ms(timing.done))}"]
        if timing.toolcall is not None:
            figures.append(f"tool decision {ms(timing.ms(timing.toolcall))}")
        figures += [
            f"{usage[key]} {key.replace('_', ' ')}" for key in ("prompt_tokens", "cached_tokens") if key in usage
        ]
        self.last = ", ".join(figures)

    def text(self) -> str:
        """Format the figures as lines of text."""
        if not self.turns:
            return "No turn yet."
        typical = ms(median(self.first_tokens)) if self.first_tokens else "–"
        return (
            f"Last turn: {self.last}.\nSo far: {self.turns} turns, {self.interrupted} of them interrupted, "
            f"{self.reply_tokens} tokens of replies, first token {typical} (median)."
        )

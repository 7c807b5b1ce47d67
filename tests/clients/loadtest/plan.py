"""What a load test does: how many sessions, when each arrives, and what it says."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from yapclient import Persona, Server

MESSAGES = (
    "Hello! How has your day been?",
    "What is a good way to spend a rainy afternoon?",
    "Tell me something about the sea.",
    "I baked bread this morning. What should I put on it?",
    "Which stars can one see in winter?",
    "What would you plant in a small garden?",
    "Can you recommend a game for four people?",
    "My dog is afraid of the stairs. What can I do?",
    "How does a lighthouse work?",
    "What makes a good story?",
    "Can you look at my screen and tell me what you see?",
    "What is your favourite season, and why?",
)


@dataclass(frozen=True)
class Plan:
    """``sessions`` in all, ``at_once`` of them at a time (None: no bound). Without ``rate`` the loop is closed: one
    ends, the next begins. With it, sessions arrive ``rate`` times a second on average (Poisson), whatever the server
    makes of it. ``think_time`` is a mean, in seconds; ``barge_in_share`` the share of turns that are interrupted.
    """

    server: Server
    persona: Persona
    sampling: dict[str, float] = field(default_factory=dict)
    sessions: int = 10
    at_once: int | None = 2
    rate: float | None = None
    turns: int = 1
    think_time: float = 0.0
    barge_in_share: float = 0.0
    twice: bool = False
    timeout: float = 60.0
    seed: int = 0
    messages: tuple[str, ...] = MESSAGES

    def arrivals(self) -> list[float]:
        """Seconds after the start at which each session is to begin; all 0 where the loop is closed."""
        if self.rate is None:
            return [0.0] * self.sessions
        chance, at, found = random.Random(self.seed), 0.0, []
        for _ in range(self.sessions):
            at += chance.expovariate(self.rate)
            found.append(at)
        return found

    def chance(self, session: int) -> random.Random:
        """The session's own dice, the same in every run of this plan."""
        return random.Random(f"{self.seed}/{session}")

    def message(self, session: int, turn: int) -> str:
        """What the session says in its turn."""
        return self.messages[(session + turn) % len(self.messages)]

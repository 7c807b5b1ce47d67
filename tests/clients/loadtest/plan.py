"""Plan of a load test: number of sessions, arrival times, and messages."""

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
    """Parameters of a load test.

    `sessions` run in total, `at_once` of them at a time (None: no limit). Without `rate` the loop is closed: a
    session starts when another one ends. With `rate` the loop is open: on average `rate` sessions arrive per second
    (Poisson process), regardless of the server's speed. `think_time` is the mean pause between turns in seconds.
    `barge_in_share` is the share of interrupted turns, 0 to 1. `twice` sends each message twice. `timeout` is in
    seconds.
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
        """Draw the planned start of each session.

        Returns:
            Seconds after the start of the test, one per session, ascending; all 0 in a closed loop.
        """
        if self.rate is None:
            return [0.0] * self.sessions
        chance, at, found = random.Random(self.seed), 0.0, []
        for _ in range(self.sessions):
            at += chance.expovariate(self.rate)
            found.append(at)
        return found

    def chance(self, session: int) -> random.Random:
        """Create the random generator of a session; equal in every run of this plan."""
        return random.Random(f"{self.seed}/{session}")

    def message(self, session: int, turn: int) -> str:
        """Choose the message of a session's turn; both count from 0."""
        return self.messages[(session + turn) % len(self.messages)]

"""The usage that a database holds, for budgets that are seeded from there."""

from __future__ import annotations

import asyncio

from accounts.breaker import DependencyAway
from accounts.token_budget import DAY_S

NOON = 1_800_000_000.0 // DAY_S * DAY_S + DAY_S / 2
Seeds = dict[str, int]


class Written:
    """What the database holds, and how often it was asked."""

    def __init__(self) -> None:
        self.tokens: Seeds = {}
        self.away = False
        self.asked: list[str] = []

    async def __call__(self, prefix: str, now: float) -> int:
        if self.away:
            raise DependencyAway("database")
        self.asked.append(prefix)
        await asyncio.sleep(0)
        return self.tokens.get(prefix, 0)

"""Who is connected to this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from inference.session import Session


class Registry:
    """The live sessions of one process. All calls belong to the serving loop."""

    def __init__(self) -> None:
        self._sessions: set[Session] = set()

    def add(self, session: Session) -> None:
        """A connection was admitted."""
        self._sessions.add(session)

    def remove(self, session: Session) -> None:
        """A connection is gone."""
        self._sessions.discard(session)

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions))

    @property
    def running(self) -> int:
        """Turns running now."""
        return sum(session.running for session in self._sessions)

    async def drain(self, timeout: float) -> None:
        """Let every running turn end and close; after ``timeout`` seconds close what is left."""
        draining = [asyncio.create_task(session.drain()) for session in self]
        if draining:
            await asyncio.wait(draining, timeout=timeout)
        for task in draining:
            task.cancel()

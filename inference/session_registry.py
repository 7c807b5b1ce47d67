"""Who is connected to this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from inference.session import Session


class SessionRegistry:
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
        """Turns running now. The one read that other threads may make."""
        return sum(session.running for session in self)

    async def drain(self, timeout: float) -> None:
        """Let every running turn end and close; after ``timeout`` seconds close what is left."""
        await asyncio.gather(*(session.drain(timeout) for session in self))

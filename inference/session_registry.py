"""Who is connected to this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from accounts.callers import Caller
from inference.resumable_sessions import ResumableSessions
from personas.snapshot import PersonaSnapshot


class LiveSession(Protocol):
    """A client of this process: a connection to ``/ws``, or one response of the OpenAI surface."""

    caller: Caller
    cache_salt: str | None
    connection: str
    within_connection: bool
    """Whether this is a response on a connection that is a session itself."""

    @property
    def running(self) -> bool:
        """Whether a turn runs now."""
        ...

    @property
    def snapshot(self) -> PersonaSnapshot | None:
        """The version of a stored persona that this session holds; None where the session has none."""
        ...

    def apply_caller(self, caller: Caller) -> None:
        """Apply changed rights and limits of the key."""
        ...

    async def revoke(self) -> None:
        """End the session: the key is revoked or expired."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Let the running turn end, cancel it after ``timeout_s`` seconds, then end the session."""
        ...


class SessionRegistry:
    """The live sessions of one process. All calls belong to the serving loop.

    Args:
        resumable: the sessions that another connection can take over; None: nothing can be resumed.
    """

    def __init__(self, resumable: ResumableSessions | None = None) -> None:
        self.resumable = ResumableSessions() if resumable is None else resumable
        self._sessions: set[LiveSession] = set()

    def add(self, session: LiveSession) -> None:
        """A connection was admitted."""
        self._sessions.add(session)

    def remove(self, session: LiveSession) -> None:
        """A connection is gone."""
        self._sessions.discard(session)

    @property
    def connections(self) -> int:
        """Clients connected now; a response counts with its connection. Other threads may read it."""
        return sum(not session.within_connection for session in self)

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[LiveSession]:
        return iter(tuple(self._sessions))

    @property
    def running(self) -> int:
        """Turns running now. Other threads may read it."""
        return sum(session.running for session in self) + self.resumable.running

    async def drain(self, timeout: float) -> None:
        """Let every running turn end and close; after ``timeout`` seconds close what is left."""
        await asyncio.gather(self.resumable.aclose(), *(session.drain(timeout) for session in self))

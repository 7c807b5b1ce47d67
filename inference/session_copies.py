"""Copies of kept sessions outside this process."""

from __future__ import annotations

from collections.abc import Callable

from accounts.callers import Caller
from inference.prompting.persona_resolver import PersonaResolver
from inference.sealed_copies import CopyStore, SealedCopies
from inference.session_record import SessionRecord, decode
from inference.session_state import SessionState

NEXT_OWNER = 1 << 32
"""Added to the version by the process that takes a copy up: a copy that the former process still writes is older."""


class SessionCopies:
    """Writes and reads the copies of sessions. All calls belong to the serving loop.

    Args:
        store: holds the bytes.
        secret: keys for encryption and names are derived from this; processes share copies where it is the same.
        resolver: returns the catalogue and the encoder in force.
    """

    def __init__(self, store: CopyStore, secret: str, resolver: Callable[[], PersonaResolver]) -> None:
        self._copies = SealedCopies(store, secret, "session")
        self._resolver = resolver

    def put(self, caller: Caller, state: SessionState) -> None:
        """Copy a session soon. The encoding happens in the store's thread."""
        record = SessionRecord.of(state, self._resolver().encoder.fingerprint)
        if record is None:
            return
        state.version += 1
        self._copies.put(caller.identity, record.session_id, state.version, record.encode)

    def delete(self, caller: Caller, session_id: str) -> None:
        """Delete a copy soon."""
        self._copies.delete(caller.identity, session_id)

    async def get(self, caller: Caller, session_id: str, newer_than: int) -> SessionState | None:
        """Return the session of a copy; None where there is none that is newer and can be used.

        Args:
            caller: the key; no other key finds the copy.
            session_id: the client's id.
            newer_than: the version that this process holds.
        """

        def opened(data: bytes) -> SessionState:
            return decode(data, self._resolver())

        found = await self._copies.get(caller.identity, session_id, opened, newer_than=newer_than)
        if found is None:
            return None
        version, state = found
        state.version = (version // NEXT_OWNER + 1) * NEXT_OWNER
        return state

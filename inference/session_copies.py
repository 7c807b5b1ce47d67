"""Copies of kept sessions outside this process: encrypted, under names that tell neither key nor session."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from accounts.callers import Caller
from inference.prompting.persona_resolver import PersonaResolver
from inference.session_record import SessionRecord, decode
from inference.session_state import SessionState

logger = logging.getLogger("yap.session")

_NONCE_BYTES = 12
NEXT_OWNER = 1 << 32
"""Added to the version by the process that takes a copy up: a copy that the former process still writes is older."""


class CopyStore(Protocol):
    """Holds bytes under names. ``accounts.redis_session_copies.RedisSessionCopies`` is one."""

    def put(self, name: str, version: int, make: Callable[[], bytes | None]) -> None:
        """Write soon what ``make`` returns, unless a higher version is there. Returns at once."""
        ...

    def delete(self, name: str) -> None:
        """Delete soon. Returns at once."""
        ...

    async def get(self, name: str) -> tuple[int, bytes] | None:
        """Return version and bytes, or None. Bounded in time; never raises."""
        ...


class SessionCopies:
    """Writes and reads the copies of sessions. All calls belong to the serving loop.

    Args:
        store: holds the bytes.
        secret: keys for encryption and names are derived from this; processes share copies where it is the same.
        resolver: returns the catalogue and the encoder in force.
    """

    def __init__(self, store: CopyStore, secret: str, resolver: Callable[[], PersonaResolver]) -> None:
        self._store = store
        self._resolver = resolver
        self._cipher = AESGCM(_derived(secret, b"yap session copies: contents"))
        self._name_key = _derived(secret, b"yap session copies: names")

    def put(self, caller: Caller, state: SessionState) -> None:
        """Copy a session soon. The encoding happens in the store's thread."""
        record = SessionRecord.of(state, self._resolver().encoder.fingerprint)
        if record is None:
            return
        state.version += 1
        name = self._name(caller, record.session_id)
        self._store.put(name, state.version, lambda: self._sealed(name, record))

    def delete(self, caller: Caller, session_id: str) -> None:
        """Delete a copy soon."""
        self._store.delete(self._name(caller, session_id))

    async def get(self, caller: Caller, session_id: str, newer_than: int) -> SessionState | None:
        """Return the session of a copy; None where there is none that is newer and can be used.

        Args:
            caller: the key; no other key finds the copy.
            session_id: the client's id.
            newer_than: the version that this process holds.
        """
        name = self._name(caller, session_id)
        found = await self._store.get(name)
        if found is None or found[0] <= newer_than:
            return None
        version, sealed = found
        try:
            state = await asyncio.to_thread(self._opened, name, sealed)
        except (ValueError, InvalidTag) as error:
            logger.info("the copy of a session is not used: %s", str(error) or "another SECRET_KEY")
            return None
        state.version = (version // NEXT_OWNER + 1) * NEXT_OWNER
        return state

    def _name(self, caller: Caller, session_id: str) -> str:
        words = f"{caller.identity}\0{session_id}".encode(errors="surrogatepass")
        return hmac.digest(self._name_key, words, "sha256").hex()

    def _sealed(self, name: str, record: SessionRecord) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, record.encode(), name.encode())

    def _opened(self, name: str, sealed: bytes) -> SessionState:
        data = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        return decode(data, self._resolver())


def _derived(secret: str, purpose: bytes) -> bytes:
    """Return a key of 32 bytes (HKDF with SHA-256, RFC 5869, one block)."""
    extracted = hmac.digest(b"\0" * 32, secret.encode(), "sha256")
    return hmac.digest(extracted, purpose + b"\1", "sha256")

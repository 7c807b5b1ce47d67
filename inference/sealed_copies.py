"""Encrypted copies outside this process, under names that tell neither key nor contents."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Callable
from typing import Protocol, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

logger = logging.getLogger("yap.session")

_NONCE_BYTES = 12

Value = TypeVar("Value")


class CopyStore(Protocol):
    """Holds bytes under names. ``accounts.redis_copies.RedisCopies`` is one."""

    def put(self, name: str, version: int, make: Callable[[], bytes | None]) -> None:
        """Write soon what ``make`` returns, unless a higher version is there. Returns at once."""
        ...

    def delete(self, name: str) -> None:
        """Delete soon. Returns at once."""
        ...

    async def get(self, name: str) -> tuple[int, bytes] | None:
        """Return version and bytes, or None. Bounded in time; never raises."""
        ...


class SealedCopies:
    """Writes and reads encrypted copies of one kind. All calls belong to the serving loop.

    Args:
        store: holds the bytes.
        secret: keys for encryption and names are derived from this; processes share copies where it is the same.
        kind: a word for what is copied; copies of two kinds have different keys.
    """

    def __init__(self, store: CopyStore, secret: str, kind: str) -> None:
        self._store = store
        self._kind = kind
        self._cipher = AESGCM(_derived(secret, f"yap {kind} copies: contents".encode()))
        self._name_key = _derived(secret, f"yap {kind} copies: names".encode())

    def put(self, owner: str, record_id: str, version: int, encode: Callable[[], bytes]) -> None:
        """Write a copy soon. ``encode`` is called in the store's thread.

        Args:
            owner: the key; no other key finds the copy.
            record_id: the id of what is copied.
            version: the copy replaces none with a higher version.
            encode: returns the contents.
        """
        name = self._name(owner, record_id)
        self._store.put(name, version, lambda: self._sealed(name, encode()))

    def delete(self, owner: str, record_id: str) -> None:
        """Delete a copy soon."""
        self._store.delete(self._name(owner, record_id))

    async def get(
        self, owner: str, record_id: str, decode: Callable[[bytes], Value], *, newer_than: int = -1
    ) -> tuple[int, Value] | None:
        """Return a copy; None where there is none that is newer and can be used.

        Args:
            owner: the key.
            record_id: the id of what was copied.
            decode: returns the value of the contents; called in a thread. A ``ValueError`` makes the copy useless.
            newer_than: the version that this process holds.

        Returns:
            (version, value).
        """
        name = self._name(owner, record_id)
        found = await self._store.get(name)
        if found is None or found[0] <= newer_than:
            return None
        version, sealed = found
        try:
            return version, await asyncio.to_thread(lambda: decode(self._opened(name, sealed)))
        except (ValueError, InvalidTag) as error:
            logger.info("the copy of a %s is not used: %s", self._kind, str(error) or "another SECRET_KEY")
            return None

    def _name(self, owner: str, record_id: str) -> str:
        words = f"{owner}\0{record_id}".encode(errors="surrogatepass")
        return hmac.digest(self._name_key, words, "sha256").hex()

    def _sealed(self, name: str, contents: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, contents, name.encode())

    def _opened(self, name: str, sealed: bytes) -> bytes:
        return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())


def _derived(secret: str, purpose: bytes) -> bytes:
    """Return a key of 32 bytes (HKDF with SHA-256, RFC 5869, one block)."""
    extracted = hmac.digest(b"\0" * 32, secret.encode(), "sha256")
    return hmac.digest(extracted, purpose + b"\1", "sha256")

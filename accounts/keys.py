"""The format of API keys, ``yap_<prefix>_<secret>``. The database holds the prefix and a hash, never the secret."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field

PREFIX_LENGTH = 8
SECRET_LENGTH = 43  # 62 symbols each: 256 bits
ENV_PREFIX = "env"  # the prefix of TEXT_API_KEY in logs and usage; a row's prefix is longer
TRY_PREFIX = "try"  # the prefix of "Try it" tickets
TICKET_START = f"{TRY_PREFIX}."

_PREFIX_SYMBOLS = string.ascii_lowercase + string.digits
_SECRET_SYMBOLS = string.ascii_letters + string.digits
KEY_PATTERN = rf"yap_([a-z0-9]{{{PREFIX_LENGTH}}})_[A-Za-z0-9]{{{SECRET_LENGTH}}}"
_FORMAT = re.compile(KEY_PATTERN, re.ASCII)


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key. ``full`` is shown once and stored nowhere."""

    prefix: str
    hash: str
    full: str = field(repr=False)


def mint(prefix: str | None = None) -> MintedKey:
    """Make a random key.

    Args:
        prefix: The prefix to keep when a key is rotated; None for a random one.
    """
    prefix = prefix or "".join(secrets.choice(_PREFIX_SYMBOLS) for _ in range(PREFIX_LENGTH))
    full = f"yap_{prefix}_{''.join(secrets.choice(_SECRET_SYMBOLS) for _ in range(SECRET_LENGTH))}"
    return MintedKey(prefix, hash_key(full), full)


def prefix_of(key: str) -> str | None:
    """The lookup prefix of a key; None where the key does not have the server's format."""
    match = _FORMAT.fullmatch(key)
    return match[1] if match else None


def hash_key(key: str) -> str:
    """SHA-256 of a key as 64 hex digits. One round suffices: a dictionary of 256 random bits is impossible."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def same(one: str, other: str) -> bool:
    """Compare two strings in a time that does not depend on where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))

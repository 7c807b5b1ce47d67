"""The secrets themselves: ``yap_<prefix>_<secret>``. Only the prefix and a hash are ever stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field

PREFIX_LENGTH = 8
SECRET_LENGTH = 43  # 62 symbols each: 256 bits
ENV_PREFIX = "env"  # what logs and usage show for TEXT_API_KEY; no row's prefix is this short
TRY_PREFIX = "try"  # the same for the page that tries a persona

_PREFIX_SYMBOLS = string.ascii_lowercase + string.digits
_SECRET_SYMBOLS = string.ascii_letters + string.digits
_FORMAT = re.compile(rf"yap_([a-z0-9]{{{PREFIX_LENGTH}}})_[A-Za-z0-9]{{{SECRET_LENGTH}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key. ``full`` is shown to a person once and kept nowhere."""

    prefix: str
    hash: str
    full: str = field(repr=False)


def mint(prefix: str | None = None) -> MintedKey:
    """A new random key, under ``prefix`` when a key that has one is rotated."""
    prefix = prefix or "".join(secrets.choice(_PREFIX_SYMBOLS) for _ in range(PREFIX_LENGTH))
    full = f"yap_{prefix}_{''.join(secrets.choice(_SECRET_SYMBOLS) for _ in range(SECRET_LENGTH))}"
    return MintedKey(prefix, hash_key(full), full)


def prefix_of(key: str) -> str | None:
    """The lookup prefix of a well-formed key, else None."""
    match = _FORMAT.fullmatch(key)
    return match[1] if match else None


def hash_key(key: str) -> str:
    """64 hex digits. One round is enough: the secret has 256 random bits, there is no dictionary to try."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def same(one: str, other: str) -> bool:
    """Equality that takes the same time wherever the two differ."""
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))

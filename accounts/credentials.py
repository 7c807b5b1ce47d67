"""Finds the API key in a request: one pure function for the WebSocket and for HTTP. No Django."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

PROTOCOL = "yap.v1"
_KEY_PROTOCOL = "yap.key."
_KEY64_PROTOCOL = "yap.key64."
# A subprotocol is a token (RFC 6455, 4.1; RFC 9110, 5.6.2): these characters and no others.
_TOKEN_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials that a request presents.

    Attributes:
        key: The API key; None where there is none, or where there are two.
        conflict: Whether two different keys were presented, which is refused.
        subprotocol: The WebSocket subprotocol to answer with; None for none.
    """

    key: str | None = field(default=None, repr=False)
    conflict: bool = False
    subprotocol: str | None = None


def find_credentials(
    headers: Iterable[tuple[bytes, bytes]], query_string: bytes = b"", subprotocols: Sequence[str] = ()
) -> Credentials:
    """Find the key in ``X-API-Key``, ``Authorization: Bearer``, ``?api_key=`` or a subprotocol.

    A subprotocol is ``yap.key.<KEY>``, or ``yap.key64.<base64url of KEY>`` for a key with other characters than a
    subprotocol may have.

    Args:
        headers: Names (in any case) and values, as ASGI gives them.

    Returns:
        The credentials. An empty key counts as none; the same key twice is one key.
    """
    query = parse_qsl(query_string.decode("latin-1")) if query_string else ()
    found = {value for name, value in query if name == "api_key"}
    for raw_name, raw_value in headers:
        name, value = raw_name.lower(), raw_value.decode("latin-1").strip()
        if name == b"x-api-key":
            found.add(value)
        elif name == b"authorization" and value[:7].lower() == "bearer ":
            found.add(value[7:].strip())
    found |= {offer.removeprefix(_KEY_PROTOCOL) for offer in subprotocols if offer.startswith(_KEY_PROTOCOL)}
    found |= {_decoded(offer) for offer in subprotocols if offer.startswith(_KEY64_PROTOCOL)}
    found.discard("")
    return Credentials(
        key=next(iter(found)) if len(found) == 1 else None,
        conflict=len(found) > 1,
        subprotocol=PROTOCOL if PROTOCOL in subprotocols else None,
    )


def fits_subprotocol(key: str) -> bool:
    """Whether a browser can send ``yap.key.<KEY>``: whether all characters of the key may occur in a subprotocol."""
    return set(key) <= _TOKEN_CHARACTERS


def _decoded(offer: str) -> str:
    """Return the key of a ``yap.key64.`` offer, with or without padding. An offer that is no base64 is no known key."""
    text = offer.removeprefix(_KEY64_PROTOCOL).rstrip("=")
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return offer


def credentials_from_scope(scope: Mapping[str, Any]) -> Credentials:
    """Return the credentials of an ASGI ``http`` or ``websocket`` scope."""
    return find_credentials(
        scope.get("headers", ()), scope.get("query_string", b""), tuple(scope.get("subprotocols") or ())
    )

"""Finds the API key in a request: one pure function for the WebSocket and for HTTP. No Django."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

PROTOCOL = "yap.v1"
_KEY_PROTOCOL = "yap.key."


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
    """Find the key in ``X-API-Key``, ``Authorization: Bearer``, ``?api_key=`` or the subprotocol ``yap.key.<KEY>``.

    Args:
        headers: Names (in any case) and values, as ASGI gives them.

    Returns:
        The credentials. An empty key counts as none; the same key twice is one key.
    """
    found = {value for name, value in parse_qsl(query_string.decode("latin-1")) if name == "api_key"}
    for raw_name, raw_value in headers:
        name, value = raw_name.lower(), raw_value.decode("latin-1").strip()
        if name == b"x-api-key":
            found.add(value)
        elif name == b"authorization" and value[:7].lower() == "bearer ":
            found.add(value[7:].strip())
    found |= {offer.removeprefix(_KEY_PROTOCOL) for offer in subprotocols if offer.startswith(_KEY_PROTOCOL)}
    found.discard("")
    return Credentials(
        key=next(iter(found)) if len(found) == 1 else None,
        conflict=len(found) > 1,
        subprotocol=PROTOCOL if PROTOCOL in subprotocols else None,
    )


def credentials_from_scope(scope: Mapping[str, Any]) -> Credentials:
    """The credentials of an ASGI ``http`` or ``websocket`` scope."""
    return find_credentials(
        scope.get("headers", ()), scope.get("query_string", b""), tuple(scope.get("subprotocols") or ())
    )

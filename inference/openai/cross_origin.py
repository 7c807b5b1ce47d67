"""Web pages of other origins as clients (CORS): who may read answers, and the answer to a browser's preflight.

A request is authorised by its key alone, never by a cookie, so that no answer allows credentials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

ANY = "*"
MAX_AGE_S = 600
"""Time that a browser may keep the answer to a preflight."""
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")
_NAMES = re.compile(rb"[A-Za-z0-9_-]{1,64}( ?, ?[A-Za-z0-9_-]{1,64}){0,63}")
_COMMON_NAMES = b"authorization, content-type, x-api-key"

Headers = list[tuple[bytes, bytes]]


class CrossOrigin:
    """The origins whose pages may use this surface.

    Args:
        origins: exact origins such as ``https://chat.example.com``; ``*`` for all; empty for none.

    Raises:
        ValueError: a text that is no origin, such as one with a path.
    """

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self._origins = frozenset(origin.strip().lower() for origin in origins if origin.strip())
        wrong = sorted(origin for origin in self._origins if origin != ANY and not _ORIGIN.fullmatch(origin))
        if wrong:
            raise ValueError(f"CORS_ORIGINS: {wrong[0]!r} is no origin; write https://host, without a path, or *")

    def headers(self, scope: dict[str, Any]) -> Headers:
        """Return the headers that every answer to a request has. No pages are allowed: none."""
        if not self._origins:
            return []
        allowed = self._allowed(scope)
        shared = [] if ANY in self._origins else [(b"vary", b"Origin")]
        if allowed is None:
            return shared
        exposed = b"retry-after, x-request-id, x-should-retry"
        return [(b"access-control-allow-origin", allowed), (b"access-control-expose-headers", exposed), *shared]

    def preflight(self, scope: dict[str, Any]) -> Headers | None:
        """Return the further headers that answer a preflight; None for a request that is none, or is not allowed."""
        if scope["method"] != "OPTIONS" or self._allowed(scope) is None:
            return None
        if not _header(scope, b"access-control-request-method"):
            return None
        names = _header(scope, b"access-control-request-headers") or b""
        return [
            (b"access-control-allow-methods", b"GET, HEAD, POST"),
            (b"access-control-allow-headers", names if _NAMES.fullmatch(names) else _COMMON_NAMES),
            (b"access-control-max-age", str(MAX_AGE_S).encode()),
        ]

    def _allowed(self, scope: dict[str, Any]) -> bytes | None:
        """Return the origin that an answer names; None where the request comes from no page, or from a wrong one."""
        origin = _header(scope, b"origin")
        if not origin or not self._origins:
            return None
        if ANY in self._origins:
            return b"*"
        return origin if origin.decode("latin-1") in self._origins else None


def _header(scope: dict[str, Any], name: bytes) -> bytes | None:
    found: bytes | None = next((value for key, value in scope["headers"] if key == name), None)
    return found

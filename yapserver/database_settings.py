"""Django's ``DATABASES`` entry, made from ``DATABASE_URL``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dj_database_url

SCHEMES = ("postgres", "postgresql")
# libpq's defaults, unless the URL has others: a server that does not answer is given up within seconds.
PATIENCE = {
    "connect_timeout": 2,  # seconds, for each host
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms without an acknowledgement from the other side
}


def database_settings(url: str | None, run_dir: Path) -> dict[str, Any]:
    """Return the settings of the one database.

    Args:
        url: ``postgres://user:password@host:port/name?sslmode=…``; every parameter behind the ``?`` is passed to libpq.
            None or empty: an SQLite file in ``run_dir``.
        run_dir: Where the SQLite file is.

    Raises:
        ValueError: One line for an operator: the URL is not understood. It repeats no part of the URL.
    """
    if not url:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": run_dir / "yap.sqlite3",
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 10,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    if url.partition("://")[0] not in SCHEMES:
        raise ValueError("must start with postgres:// (empty is an SQLite file)")
    try:
        # No CONN_MAX_AGE: a request's thread ends with the request, and its connection with it. The threads that look
        # up keys, watch the configuration and write usage keep theirs (accounts.database_threads).
        parsed: dict[str, Any] = dict(dj_database_url.parse(url))
    except dj_database_url.ParseError:
        raise ValueError(
            "is not a URL with one host and one port; several hosts are written postgres:///name?host=a,b&port=5432,5432"
        ) from None
    return {**parsed, "OPTIONS": {**PATIENCE, **parsed.get("OPTIONS", {})}}

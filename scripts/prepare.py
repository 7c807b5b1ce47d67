"""What a start needs from Django, in one process: check, migrate, static files, the admin's account.

    .venv/bin/python scripts/prepare.py

Prints the admin's password when the account is made, else nothing. Exit status 1 with the reason on stderr.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import django
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


_LOCK = int.from_bytes(b"yap", "big")  # of PostgreSQL's advisory locks


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one process at a time prepare a PostgreSQL database: several processes of one server start together.

    The lock ends with the connection, also where the process is killed. SQLite has one writer anyway.
    """
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        try:
            yield
        finally:
            if connection.connection is not None and not connection.connection.closed:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def main() -> int:
    """Command line; returns the exit status."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "yapserver.settings")
    django.setup()
    try:
        call_command("check", stdout=io.StringIO())
        with one_at_a_time():
            call_command("migrate", interactive=False, verbosity=0)
            call_command("ensure_admin")
        call_command("collectstatic", interactive=False, verbosity=0)
    except (CommandError, DatabaseError, OSError) as error:
        print(f"yap: cannot prepare the database: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What a start needs from Django, in one process: check, migrate, static files, the admin's account.

    .venv/bin/python scripts/prepare.py

Prints the admin's password when the account is made, else nothing. Exit status 1 with the reason on stderr.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import django
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> int:
    """Command line; returns the exit status."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "yapserver.settings")
    django.setup()
    try:
        call_command("check", stdout=io.StringIO())
        call_command("migrate", interactive=False, verbosity=0)
        call_command("collectstatic", interactive=False, verbosity=0)
        call_command("ensure_admin")
    except (CommandError, DatabaseError, OSError) as error:
        print(f"yap: cannot prepare the database: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""``manage.py revokekey PREFIX…``: revokes keys for good."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import ApiKey
from accounts.services import revoke_key


class Command(BaseCommand):
    """Serving processes close the keys' connections within a second."""

    help = "Revoke API keys by their prefix."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("prefix", nargs="+", help="the 8 characters between yap_ and the next _")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = {row.prefix: row for row in ApiKey.objects.filter(prefix__in=options["prefix"])}
        missing = [prefix for prefix in options["prefix"] if prefix not in rows]
        if missing:
            raise CommandError(f"no key has the prefix {', '.join(missing)}; nothing was revoked")
        for row in rows.values():
            self.stdout.write(f"{row}: {'revoked' if revoke_key(row) else 'was revoked before'}")

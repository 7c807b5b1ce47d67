"""``manage.py rotatekey PREFIX``: gives a key a new secret and prints it once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.models import ApiKey
from accounts.services import rotate_key


class Command(BaseCommand):
    """Prints the key alone to standard output, so that a script can store it."""

    help = "Give an API key a new secret and print it. The secret cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("prefix", help="the 8 characters between yap_ and the next _")
        parser.add_argument(
            "--keep-old-hours", type=float, default=24.0, metavar="H", help="hours that the old secret stays valid (24)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        row = ApiKey.objects.filter(prefix=options["prefix"]).first()
        if row is None:
            raise CommandError(f"no key has the prefix {options['prefix']}")
        try:
            full = rotate_key(row, timezone.now() + timedelta(hours=options["keep_old_hours"]))
        except (ValueError, OverflowError) as error:
            raise CommandError(str(error)) from None
        self.stderr.write(f"Rotated {row}; the old secret is valid until {row.previous_until or 'now'}. The new one:")
        self.stdout.write(full)

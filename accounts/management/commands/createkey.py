"""``manage.py createkey NAME``: makes a key and prints it, once."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from accounts.models import LIMIT_FIELDS
from accounts.services import create_key


class Command(BaseCommand):
    """The key alone goes to standard output, so that a script can keep it."""

    help = "Makes an API key and prints it. It cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="who or what uses the key")
        parser.add_argument("--note", default="")
        parser.add_argument("--expires", metavar="TIME", help="ISO 8601, UTC unless it says otherwise; default: never")
        for field in LIMIT_FIELDS:
            parser.add_argument(f"--{field.replace('_', '-')}", type=int, metavar="N", help="default: the server's")

    def handle(self, *args: Any, **options: Any) -> None:
        expires = None
        if options["expires"]:
            try:
                expires = parse_datetime(options["expires"])
            except ValueError:
                expires = None
            if expires is None:
                raise CommandError(f"--expires {options['expires']}: not a time such as 2030-01-31T12:00")
            if timezone.is_naive(expires):
                expires = timezone.make_aware(expires)
        limits = {field: options[field] for field in LIMIT_FIELDS}
        try:
            row, full = create_key(options["name"], note=options["note"], expires_at=expires, **limits)
        except ValidationError as error:
            raise CommandError(
                "; ".join(f"{name}: {' '.join(why)}" for name, why in error.message_dict.items())
            ) from None
        self.stderr.write(f"Made {row}. This is the only time it is shown:")
        self.stdout.write(full)

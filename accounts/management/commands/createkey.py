"""``manage.py createkey NAME``: creates an API key and prints it once."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from accounts.models import LIMIT_FIELDS
from accounts.services import create_key


class Command(BaseCommand):
    """Prints the key alone to standard output, so that a script can store it."""

    help = "Create an API key and print it. The key cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the user or application of the key")
        parser.add_argument("--note", default="")
        parser.add_argument(
            "--expires", metavar="TIME", help="ISO 8601, in UTC unless an offset is given; default: never"
        )
        for field in LIMIT_FIELDS:
            parser.add_argument(f"--{field.replace('_', '-')}", type=int, metavar="N", help="default: the server's")
        parser.add_argument("--may-read-metrics", action="store_true", help="allow /metrics and the full /status")

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
        fields = {field: options[field] for field in (*LIMIT_FIELDS, "may_read_metrics")}
        try:
            row, full = create_key(options["name"], note=options["note"], expires_at=expires, **fields)
        except ValidationError as error:
            raise CommandError(
                "; ".join(f"{name}: {' '.join(why)}" for name, why in error.message_dict.items())
            ) from None
        self.stderr.write(f"Made {row}. It is shown this once:")
        self.stdout.write(full)

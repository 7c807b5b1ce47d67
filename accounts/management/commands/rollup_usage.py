"""``manage.py rollup_usage``: minutes become hours, hours days, and the oldest days go. For a daily timer.

How long usage is kept at all is ``USAGE_KEEP_DAYS``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.usage_services import roll_up


class Command(BaseCommand):
    """Safe while the server runs, and to run twice."""

    help = "Rolls usage up by hour and day, and removes what is older than it is kept for."

    def add_arguments(self, parser: CommandParser) -> None:
        days = settings.ENV.USAGE_KEEP_DAYS
        minutes, hours = min(48, 24 * days), min(31, days)
        parser.add_argument(
            "--keep-minutes", type=int, default=minutes, metavar="HOURS", help=f"minutes are kept so long ({minutes})"
        )
        parser.add_argument(
            "--keep-hours", type=int, default=hours, metavar="DAYS", help=f"hours are kept so long ({hours})"
        )
        parser.add_argument(
            "--keep-days",
            type=int,
            default=days,
            metavar="DAYS",
            help=f"days are kept so long (USAGE_KEEP_DAYS, {days})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            moved = roll_up(
                timezone.now(),
                timedelta(hours=options["keep_minutes"]),
                timedelta(days=options["keep_hours"]),
                timedelta(days=options["keep_days"]),
            )
        except (ValueError, OverflowError) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"{moved['minute']} minutes into hours, {moved['hour']} hours into days, {moved['day']} days removed"
        )

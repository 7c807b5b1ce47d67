"""``manage.py rollup_usage``: rolls usage up and deletes old data. For a daily timer.

Minutes become hours, hours become days. Days, and keys revoked before them, are deleted after ``USAGE_KEEP_DAYS``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.services import purge_revoked_keys
from accounts.usage_services import roll_up


class Command(BaseCommand):
    """Safe to run while the server runs, and to run twice."""

    help = "Roll usage up by hour and day; delete usage and revoked keys older than USAGE_KEEP_DAYS."

    def add_arguments(self, parser: CommandParser) -> None:
        days = settings.ENV.USAGE_KEEP_DAYS
        minutes, hours = min(48, 24 * days), min(31, days)
        parser.add_argument(
            "--keep-minutes",
            type=int,
            default=minutes,
            metavar="HOURS",
            help=f"age at which minutes become hours ({minutes})",
        )
        parser.add_argument(
            "--keep-hours", type=int, default=hours, metavar="DAYS", help=f"age at which hours become days ({hours})"
        )
        parser.add_argument(
            "--keep-days",
            type=int,
            default=days,
            metavar="DAYS",
            help=f"age at which days and revoked keys are deleted (USAGE_KEEP_DAYS, {days})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        try:
            moved = roll_up(
                now,
                timedelta(hours=options["keep_minutes"]),
                timedelta(days=options["keep_hours"]),
                timedelta(days=options["keep_days"]),
            )
            purged = purge_revoked_keys(now - timedelta(days=options["keep_days"]))
        except (ValueError, OverflowError) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"{moved['minute']} minutes into hours, {moved['hour']} hours into days, {moved['day']} days deleted, "
            f"{purged} revoked keys deleted"
        )

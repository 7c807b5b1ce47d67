"""``manage.py ensure_admin``: on the first start, creates an admin account and prints its random password once."""

from __future__ import annotations

import secrets
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

NAME = "admin"


class Command(BaseCommand):
    """Does nothing and prints nothing where a superuser exists."""

    help = "Create the account `admin` with a random password if there is no superuser yet."

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        users = get_user_model()
        if users.objects.filter(is_superuser=True).exists():
            return
        if users.objects.filter(username=NAME).exists():
            raise CommandError(f"{NAME} exists and is no superuser; use `manage.py createsuperuser`")
        password = secrets.token_urlsafe(18)
        users.objects.create_superuser(username=NAME, password=password)
        self.stdout.write(f"admin account: {NAME}  password: {password}  (shown once)")

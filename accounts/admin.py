"""The admin of this app: its pages register themselves, and every login goes through the counting form."""

from __future__ import annotations

from django.contrib import admin

from accounts import key_admin, usage_admin, user_admin  # noqa: F401  # they register themselves
from accounts.login import LoginForm

admin.site.login_form = LoginForm

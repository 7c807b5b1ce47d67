"""System checks of this app."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks

MIN_KEY_LENGTH = 16
_PLACEHOLDERS = ("changeme", "change-me", "secret", "your", "test", "example", "placeholder", "password", "12345")


@checks.register(checks.Tags.security)
def text_api_key(**_: Any) -> list[checks.CheckMessage]:
    """Warn of a ``TEXT_API_KEY`` that can be guessed. Beyond loopback, ``yapserver.env`` refuses a short one."""
    key = settings.ENV.text_api_key
    if settings.DEBUG or not key:
        return []
    if len(key) < MIN_KEY_LENGTH:
        hint = "Make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`."
        return [
            checks.Warning(f"TEXT_API_KEY is shorter than {MIN_KEY_LENGTH} characters.", hint=hint, id="accounts.W001")
        ]
    if any(word in key.lower() for word in _PLACEHOLDERS) or len(set(key)) < 6:
        return [checks.Warning("TEXT_API_KEY looks like a placeholder.", hint="Use a random one.", id="accounts.W002")]
    return []

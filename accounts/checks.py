"""System checks of this app."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks

from accounts.credentials import fits_subprotocol

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
    if not fits_subprotocol(key):
        hint = "Send the key as `yap.key64.` and its base64url, or use a key of letters, digits, - and _."
        return [checks.Warning("Browsers cannot send TEXT_API_KEY as a subprotocol.", hint=hint, id="accounts.W003")]
    if any(word in key.lower() for word in _PLACEHOLDERS) or len(set(key)) < 6:
        return [checks.Warning("TEXT_API_KEY looks like a placeholder.", hint="Use a random one.", id="accounts.W002")]
    return []

"""The admin's login, throttled: guessing a password takes longer than anybody lives."""

from __future__ import annotations

import hashlib
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from redis.exceptions import RedisError
from unfold.forms import AuthenticationForm

WINDOW_S = 300
PER_ADDRESS_AND_USER = 5
PER_ADDRESS = 30

_local = LocMemCache("login", {})  # when the shared cache does not answer, an operator must get in all the same


def client_address(request: HttpRequest) -> str:
    """Where the request comes from: the peer, or what the trusted proxy in front saw."""
    forwarded = request.headers.get("X-Forwarded-For", "") if settings.ENV.TRUST_PROXY else ""
    return forwarded.rpartition(",")[2].strip() or str(request.META.get("REMOTE_ADDR") or "")


def _count(name: str) -> int:
    try:
        return _count_in(cache, name)
    except (RedisError, OSError):
        return _count_in(_local, name)


def _count_in(store: BaseCache, name: str) -> int:
    store.add(name, 0, WINDOW_S)
    try:
        return store.incr(name)
    except ValueError:  # it expired between the two lines
        store.set(name, 1, WINDOW_S)
        return 1


def _forget(name: str) -> None:
    _local.delete(name)
    try:
        cache.delete(name)
    except (RedisError, OSError):
        return


class LoginForm(AuthenticationForm):
    """Every attempt is counted before its password is looked at, per address and name, and per address."""

    def clean(self) -> dict[str, Any]:
        """Raises ``ValidationError`` for a wrong password and, whatever the password, after too many attempts."""
        address = client_address(self.request) if self.request is not None else ""
        user = str(self.cleaned_data.get("username", "")).casefold()
        both, alone = (f"login:{_digest(text)}" for text in (f"{address}\n{user}", address))
        if _count(alone) > PER_ADDRESS or _count(both) > PER_ADDRESS_AND_USER:
            minutes = WINDOW_S // 60
            raise ValidationError(f"Too many attempts. Try again in {minutes} minutes.", code="throttled")
        cleaned: dict[str, Any] = super().clean()
        _forget(both)
        return cleaned


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

"""One key check for REST and WebSocket: what a request presents, and DRF's authentication made from it."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts.callers import Caller
from accounts.credentials import Credentials, credentials_from_scope, find_credentials
from accounts.defaults import default_limits
from accounts.selectors import find_caller_sync

__all__ = ["CallerUser", "Credentials", "KeyAuthentication", "credentials_from_request", "credentials_from_scope"]


class CallerUser:
    """What DRF calls a user: an authenticated key."""

    is_authenticated = True
    is_active = True
    is_staff = False

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def __str__(self) -> str:
        return self.caller.prefix


def credentials_from_request(request: HttpRequest) -> Credentials:
    """The credentials of a Django request."""
    headers = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in request.headers.items()]
    return find_credentials(headers, request.META.get("QUERY_STRING", "").encode("latin-1", "replace"))


class KeyAuthentication(BaseAuthentication):
    """``request.user`` is a :class:`CallerUser`, ``request.auth`` the :class:`Caller`; a bad key is a 401."""

    def authenticate(self, request: Request) -> tuple[CallerUser, Caller] | None:
        """None where no key is presented."""
        given = credentials_from_request(request._request)
        if given.conflict:
            raise AuthenticationFailed("Two different API keys were given.")
        if given.key is None:
            return None
        caller = find_caller_sync(given.key, default_limits(settings.ENV), settings.ENV.TEXT_API_KEY)
        if caller is None:
            raise AuthenticationFailed("Unknown, revoked or expired API key.")
        return CallerUser(caller), caller

    def authenticate_header(self, request: Request) -> str:
        """The challenge that makes DRF answer 401, not 403."""
        return 'Bearer realm="yap"'

"""The key check: one function for the WebSocket and for HTTP, and DRF's authentication class made from it."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request

from accounts.addresses import client_address, network_of
from accounts.callers import Caller, Limits
from accounts.credentials import Credentials, find_credentials
from accounts.defaults import default_limits
from accounts.key_guesses import TooManyWrongKeys, is_guess, wrong_keys
from accounts.keys import same
from accounts.selectors import find_caller


class CallerUser:
    """DRF's ``request.user`` for an authenticated key."""

    is_authenticated = True
    is_active = True
    is_staff = False

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def __str__(self) -> str:
        return self.caller.prefix


def authenticate(key: str, network: str, defaults: Limits, text_api_key: str | None) -> Caller | None:
    """Find the caller of a key, and count a wrong key that could be a guess of ``TEXT_API_KEY``. For threads.

    Args:
        key: The key that was presented.
        network: Where it came from, as :func:`accounts.addresses.network_of` returns it.
        defaults: The server's own limits.
        text_api_key: The plain text of ``TEXT_API_KEY``; None where there is none.

    Returns:
        The caller; None where the key is unknown, revoked or expired.

    Raises:
        TooManyWrongKeys: The network has used up its attempts; the key was not looked at.
    """
    if is_guess(key):
        wrong_keys.guessed(network, right=text_api_key is not None and same(key, text_api_key))
    return find_caller(key, defaults, text_api_key)


def credentials_from_request(request: HttpRequest) -> Credentials:
    """The credentials of a Django request."""
    headers = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in request.headers.items()]
    return find_credentials(headers, request.META.get("QUERY_STRING", "").encode("latin-1", "replace"))


def network_of_request(request: HttpRequest) -> str:
    """The network that a Django request came from. With ``TRUST_PROXY``, the proxy names the client."""
    peer, forwarded = str(request.META.get("REMOTE_ADDR") or ""), request.headers.get("X-Forwarded-For", "")
    return network_of(client_address(peer, forwarded, settings.ENV.TRUST_PROXY))


def caller_of_request(request: HttpRequest) -> Caller | None:
    """The caller of a Django request; None where no key, two keys or a bad key is presented.

    Raises:
        TooManyWrongKeys: See :func:`authenticate`.
    """
    key = credentials_from_request(request).key
    if key is None:
        return None
    return authenticate(key, network_of_request(request), default_limits(settings.ENV), settings.ENV.text_api_key)


class KeyAuthentication(BaseAuthentication):
    """Sets ``request.user`` to a :class:`CallerUser` and ``request.auth`` to its :class:`Caller`.

    A bad key is answered with 401, too many bad keys with 429.
    """

    def authenticate(self, request: Request) -> tuple[CallerUser, Caller] | None:
        """The user and the caller; None where no key is presented."""
        given = credentials_from_request(request._request)
        if given.conflict:
            raise AuthenticationFailed("Two different API keys were given.")
        if given.key is None:
            return None
        try:
            caller = caller_of_request(request._request)
        except TooManyWrongKeys as error:
            raise Throttled(error.retry_in, "Too many wrong API keys from this address.") from None
        if caller is None:
            raise AuthenticationFailed("Unknown, revoked or expired API key.")
        return CallerUser(caller), caller

    def authenticate_header(self, request: Request) -> str:
        """The challenge that makes DRF answer 401, not 403."""
        return 'Bearer realm="yap"'

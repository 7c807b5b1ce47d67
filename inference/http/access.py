"""Which requests may see the server's numbers: ``/metrics``, the full ``/status``, the reason of ``/readyz``."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest

from accounts.authentication import caller_of_request
from accounts.key_guesses import TooManyWrongKeys

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")


def is_from_this_machine(request: HttpRequest) -> bool:
    """Whether ``METRICS_PUBLIC_LOOPBACK`` is on and the request comes from a loopback peer, by a loopback name.

    A request that passed a proxy does not. The name in ``Host`` is checked because a page in a browser on this machine
    can point a name of its own at 127.0.0.1 (DNS rebinding).
    """
    if not settings.ENV.METRICS_PUBLIC_LOOPBACK or any(name in request.headers for name in _FORWARDED):
        return False
    return _is_loopback(str(request.META.get("REMOTE_ADDR", ""))) and _is_loopback(_host(request))


def may_read_metrics(request: HttpRequest) -> bool:
    """Whether a request comes from this machine or shows a key that may read metrics."""
    if is_from_this_machine(request):
        return True
    try:
        caller = caller_of_request(request)
    except TooManyWrongKeys:
        return False
    return caller is not None and caller.may_read_metrics


def _host(request: HttpRequest) -> str:
    """The name in ``Host`` without port and brackets."""
    host = request.headers.get("Host", "")
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _is_loopback(address: str) -> bool:
    if address.lower() == "localhost":
        return True
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket has no address; another name is no loopback name
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback

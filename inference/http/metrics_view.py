"""``/metrics`` for Prometheus: the server's own series and those of its engines in one answer.

Both engines fill registries of their own with series of the same names; here each of their samples is marked with
its ``role``. vLLM's own label ``engine`` numbers the parts of one engine and stays what it is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric

from accounts.authentication import credentials_from_request
from accounts.defaults import default_limits
from accounts.selectors import find_caller_sync
from inference.http.views import SCOPE_KEY, ServerStatus

ROLE = "role"
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")


class _Registry(Protocol):
    def collect(self) -> Any: ...


class Merged:
    """Several registries as one (for ``generate_latest``): families of one name become one, samples get their role."""

    def __init__(self, own: _Registry, engines: Mapping[str, _Registry]) -> None:
        self._own = own
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        """The server's families as they are, then the engines'."""
        yield from self._own.collect()
        families: dict[str, Metric] = {}
        for role, registry in self._engines.items():
            for family in registry.collect():
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    merged.samples.append(sample._replace(labels={**sample.labels, ROLE: role}))
        yield from families.values()


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus' text format; 401 without a key, 503 in a process that serves no conversation."""
    if not (_from_this_machine(request) and settings.ENV.METRICS_PUBLIC_LOOPBACK) and not _has_key(request):
        challenge = {"WWW-Authenticate": 'Bearer realm="yap"'}
        return JsonResponse({"detail": "A key is needed."}, status=401, headers=challenge)
    server: ServerStatus | None = getattr(request, "scope", {}).get(SCOPE_KEY)
    if server is None:
        return JsonResponse({"detail": "this process runs no engines"}, status=503)
    serving = server.serving
    engines = {role.value: registry for role, registry in serving.engines.registries().items()}
    return HttpResponse(generate_latest(Merged(serving.metrics.registry, engines)), content_type=CONTENT_TYPE_LATEST)


def _from_this_machine(request: HttpRequest) -> bool:
    """Whether the peer itself is a loopback address. What came through a proxy is not, whatever its headers say."""
    if any(name in request.headers for name in _FORWARDED):
        return False
    try:
        address = ipaddress.ip_address(str(request.META.get("REMOTE_ADDR", "")))
    except ValueError:  # a Unix socket has none
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _has_key(request: HttpRequest) -> bool:
    given = credentials_from_request(request)
    if given.key is None:
        return False
    return find_caller_sync(given.key, default_limits(settings.ENV), settings.ENV.TEXT_API_KEY) is not None

"""``/metrics`` for Prometheus: the server's own series and those of its engines in one answer.

Both engines fill registries of their own with series of the same names; here each of their samples is marked with
its ``role``. vLLM's own label ``engine`` numbers the parts of one engine and stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric

from accounts.authentication import caller_of_request
from accounts.key_guesses import TooManyWrongKeys
from inference.http.access import is_from_this_machine
from inference.http.views import SCOPE_KEY, ServerStatus

ROLE = "role"


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
    """Prometheus' text format.

    401 without a valid key, 403 for a key without the right to read metrics, 429 after too many wrong keys, 503 in a
    process without engines.
    """
    if not is_from_this_machine(request):
        refusal = _refusal(request)
        if refusal is not None:
            return refusal
    server: ServerStatus | None = getattr(request, "scope", {}).get(SCOPE_KEY)
    if server is None:
        return JsonResponse({"detail": "this process runs no engines"}, status=503)
    serving = server.serving
    engines = serving.engines.registries()
    return HttpResponse(generate_latest(Merged(serving.metrics.registry, engines)), content_type=CONTENT_TYPE_LATEST)


def _refusal(request: HttpRequest) -> HttpResponse | None:
    """The answer to a request whose key may not read metrics; None where it may."""
    try:
        caller = caller_of_request(request)
    except TooManyWrongKeys as error:
        headers = {"Retry-After": str(error.retry_in)}
        return JsonResponse({"detail": "Too many wrong API keys from this address."}, status=429, headers=headers)
    if caller is None:
        challenge = {"WWW-Authenticate": 'Bearer realm="yap"'}
        return JsonResponse({"detail": "An API key is required."}, status=401, headers=challenge)
    if not caller.may_read_metrics:
        return JsonResponse({"detail": "This API key may not read metrics."}, status=403)
    return None

"""HTTP beside the conversation: is it alive, is it ready, how is it doing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, cast

from asgiref.sync import async_to_sync
from drf_spectacular.utils import OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers, status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.callers import Caller
from accounts.connection_slots import ConnectionSlots
from inference.http.access import may_read_metrics
from inference.serving_context import ServingContext
from inference.session_registry import SessionRegistry

SCOPE_KEY = "yap.runtime"


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What these views may see of the process that serves; it comes with the request's ASGI scope."""

    serving: ServingContext
    registry: SessionRegistry
    slots: ConnectionSlots
    version: str

    def state(self) -> str:
        """One word: ``ready``, ``starting``, ``dead`` or ``draining``."""
        if self.serving.draining:
            return "draining"
        if self.serving.ready:
            return "ready"
        return "dead" if self.serving.engines.failure else "starting"

    def readiness(self) -> tuple[bool, str]:
        """Whether conversations can begin, and why not."""
        if self.serving.draining:
            return False, "draining"
        engines = self.serving.engines
        if engines.failure:
            return False, engines.failure
        for role, told in engines.status().items():
            if told["state"] != "ready":
                return False, f"{role} engine {told['state']}: {told['reason']}".rstrip(": ")
        if not engines.ready:  # it has died, and that has not been looked at yet
            return False, "an engine has died"
        return (True, "") if self.serving.started else (False, "loading the catalogue")


def status_of(request: Request) -> ServerStatus | None:
    """The server of the process that serves this request; None where it serves no conversation (tests, WSGI)."""
    scope: dict[str, Any] = getattr(request._request, "scope", {})
    return scope.get(SCOPE_KEY)


_Health = inline_serializer("Health", {"status": serializers.CharField()})
_NotReady = inline_serializer(
    "NotReady",
    {"status": serializers.CharField(), "reason": serializers.CharField(), "retry_in": serializers.IntegerField()},
)
_Connections = inline_serializer(
    "Connections",
    {
        "active": serializers.IntegerField(),
        "max": serializers.IntegerField(),
        "available": serializers.IntegerField(),
        "at_capacity": serializers.BooleanField(),
    },
)


class HealthView(APIView):
    """200 while the process lives."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(responses=_Health, auth=[])  # type: ignore[untyped-decorator]  # drf_spectacular is not followed
    def get(self, request: Request) -> Response:
        """Alive."""
        return Response({"status": "ok"})


class ReadyView(APIView):
    """200 when every deployed engine answers, else 503 with the reason."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(  # type: ignore[untyped-decorator]
        responses={200: _Health, 503: OpenApiResponse(_NotReady, "starting, dead or draining")}, auth=[]
    )
    def get(self, request: Request) -> Response:
        """Ready for conversations."""
        server = status_of(request)
        ready, reason = server.readiness() if server else (False, "this process runs no engines")
        if ready:
            return Response({"status": "ready"})
        state, wait = ("dead", 5) if server is None else (server.state(), server.serving.engines.retry_in)
        if not may_read_metrics(request._request):
            reason = state  # an engine's failure text names paths and versions
        answer = Response(
            {"status": state, "reason": reason, "retry_in": wait}, status=status.HTTP_503_SERVICE_UNAVAILABLE
        )
        answer._has_been_logged = True  # type: ignore[attr-defined]  # Django's mark: whoever asks, asks every second
        return answer


class StatusView(APIView):
    """How the server is doing, for a client with a key."""

    @extend_schema(  # type: ignore[untyped-decorator]
        responses=inline_serializer(
            "Status",
            {
                "status": serializers.CharField(),
                "connections": _Connections,
                "healthy": serializers.BooleanField(),
                "turns_running": serializers.IntegerField(
                    required=False, help_text="Only for keys that may read metrics."
                ),
                "engines": serializers.DictField(
                    help_text="By role. Keys that may not read metrics get the `state` of each engine alone."
                ),
                "models": serializers.DictField(help_text="Model names by role; for a local model the folder's name."),
                "version": serializers.CharField(),
            },
        )
    )
    def get(self, request: Request) -> Response:
        """Returns connections, engines, models and version."""
        server = status_of(request)
        if server is None:
            return Response({"detail": "this process runs no engines"}, status=status.HTTP_503_SERVICE_UNAVAILABLE)
        engines = {
            role: {**told, "model": model_name(told["model"])} for role, told in server.serving.engines.status().items()
        }
        answer = {
            "status": "running",
            "connections": async_to_sync(server.slots.snapshot)(),
            "healthy": server.serving.ready,
            "engines": {role: {"state": told["state"]} for role, told in engines.items()},
            "models": {role: told["model"] for role, told in engines.items()},
            "version": server.version,
        }
        if cast(Caller, request.auth).may_read_metrics:
            answer |= {"turns_running": server.registry.running, "engines": engines}
        return Response(answer)


def model_name(model: str) -> str:
    """A model's name without the folders of this machine; a Hub id stays whole."""
    return PurePath(model).name if model.startswith(("/", ".", "~")) else model

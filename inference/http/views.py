"""Health, readiness and status over HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, cast

from asgiref.sync import async_to_sync
from drf_spectacular.utils import OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers, status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.breaker import DependencyAway
from accounts.callers import Caller
from accounts.connection_slots import Capacity, ConnectionSlots
from accounts.redis_process_reports import RedisProcessReports
from inference.http.access import may_read_metrics
from inference.process_report import MAX_REASON, ProcessReport, decode
from inference.serving_context import ServingContext
from inference.session_registry import SessionRegistry

logger = logging.getLogger("yap.status")

SCOPE_KEY = "yap.runtime"


@dataclass(slots=True)
class ServerStatus:
    """The state of the serving process, for these views and the dashboard. It comes with the request's ASGI scope.

    Attributes:
        serving: The engines and what sessions share.
        registry: Live sessions.
        slots: Connection slots.
        version: Of the server.
        degraded: Returns the names of what does not work now.
        start_problem: Why the catalogue is not loaded yet, for ``/readyz``.
        reports: Reports of all processes that share a Redis; None without Redis.
        started: Unix time of the start, seconds.
    """

    serving: ServingContext
    registry: SessionRegistry
    slots: ConnectionSlots
    version: str
    degraded: Callable[[], list[str]] = list
    start_problem: str = ""
    reports: RedisProcessReports | None = None
    started: float = field(default_factory=time.time)

    def state(self) -> str:
        """Return ``ready``, ``starting``, ``dead`` or ``draining``."""
        if self.serving.draining:
            return "draining"
        if self.serving.ready:
            return "ready"
        return "dead" if self.serving.engines.failure else "starting"

    def readiness(self) -> tuple[bool, str]:
        """Return whether conversations can begin, and the reason where they cannot."""
        if self.serving.draining:
            return False, "draining"
        engines = self.serving.engines
        if engines.failure:
            return False, engines.failure
        for role, engine in engines.status().items():
            if engine.state != "ready" and not engines.ready:
                return False, f"{role} engine {engine.state}: {engine.reason}".rstrip(": ")
        if not engines.ready:  # it has died since its state was last updated
            return False, "an engine has died"
        if self.serving.started:
            return True, ""
        return False, f"loading the catalogue: {self.start_problem}".rstrip(": ")

    def report(self) -> ProcessReport:
        """Return the state of this process. From any thread."""
        return ProcessReport(
            host=socket.gethostname(),
            pid=os.getpid(),
            version=self.version,
            state=self.state(),
            reason=self.readiness()[1][:MAX_REASON],
            connections=self.registry.connections,
            turns_running=self.registry.running,
            started=self.started,
            at=time.monotonic(),
            engines=self.serving.engines.status(),
        )

    async def processes(self) -> list[ProcessReport]:
        """Return the state of all processes that share a Redis, this process first.

        Only this process while Redis does not answer; an empty list without Redis.
        """
        if self.reports is None:
            return []
        try:
            found = await self.reports.others()
        except DependencyAway:
            found = []
        others: list[ProcessReport] = []
        for each in found:
            try:
                others.append(decode(each))
            except ValueError as error:
                logger.warning("%s", error)
        return [self.report(), *sorted(others, key=lambda each: (each.host, each.pid))]

    async def counts(self) -> tuple[Capacity, list[ProcessReport]]:
        """Return the connection slots of all processes, and :meth:`processes`."""
        slots, processes = await asyncio.gather(self.slots.snapshot(), self.processes())
        return slots, processes


def status_of(request: Request) -> ServerStatus | None:
    """Return the state of the serving process; None in a process that serves no conversations (tests, WSGI)."""
    scope: dict[str, Any] = getattr(request._request, "scope", {})
    return scope.get(SCOPE_KEY)


_Health = inline_serializer("Health", {"status": serializers.CharField()})
_NotReady = inline_serializer(
    "NotReady",
    {"status": serializers.CharField(), "reason": serializers.CharField(), "retry_in": serializers.IntegerField()},
)
_Ready = inline_serializer(
    "Ready",
    {
        "status": serializers.CharField(),
        "degraded": serializers.ListField(
            child=serializers.ChoiceField(["database", "redis", "slots", "usage", "chat engine", "tool engine"]),
            required=False,
            help_text="What does not work now; absent where everything works.",
        ),
    },
)
_Processes = inline_serializer(
    "Process",
    {
        "host": serializers.CharField(),
        "pid": serializers.IntegerField(),
        "version": serializers.CharField(),
        "state": serializers.ChoiceField(["ready", "starting", "dead", "draining"]),
        "connections": serializers.IntegerField(),
        "turns_running": serializers.IntegerField(),
        "engines": serializers.DictField(help_text="The state of each engine, by role."),
    },
    many=True,
    required=False,
    help_text="All processes that share a Redis, this one first. Only for keys that may read metrics.",
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
    """Answers 200 while the process runs."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(responses=_Health, auth=[])  # type: ignore[untyped-decorator]  # drf_spectacular is not followed
    def get(self, request: Request) -> Response:
        """Whether the process runs."""
        return Response({"status": "ok"})


class ReadyView(APIView):
    """Answers 200 when conversations can begin, else 503 with the reason."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(  # type: ignore[untyped-decorator]
        responses={200: _Ready, 503: OpenApiResponse(_NotReady, "starting, dead or draining")}, auth=[]
    )
    def get(self, request: Request) -> Response:
        """Whether conversations can begin, and what does not work meanwhile."""
        server = status_of(request)
        ready, reason = server.readiness() if server else (False, "this process runs no engines")
        if ready and server is not None:
            degraded = [*server.degraded(), *(f"{role} engine" for role in server.serving.engines.degraded())]
            return Response({"status": "ready", "degraded": degraded} if degraded else {"status": "ready"})
        state, wait = ("dead", 5) if server is None else (server.state(), server.serving.engines.retry_in)
        if not may_read_metrics(request._request):
            reason = state  # an engine's failure text names paths and versions
        answer = Response(
            {"status": state, "reason": reason, "retry_in": wait}, status=status.HTTP_503_SERVICE_UNAVAILABLE
        )
        answer._has_been_logged = True  # type: ignore[attr-defined]  # a probe asks every second; one log line each is noise
        return answer


class StatusView(APIView):
    """Counts and states of the server, for a client with a key."""

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
                "processes": _Processes,
            },
        )
    )
    def get(self, request: Request) -> Response:
        """Returns connections, engines, models and version."""
        server = status_of(request)
        if server is None:
            return Response({"detail": "this process runs no engines"}, status=status.HTTP_503_SERVICE_UNAVAILABLE)
        engines = {
            role: {**engine.as_json(), "model": model_name(engine.model)}
            for role, engine in server.serving.engines.status().items()
        }
        full = cast(Caller, request.auth).may_read_metrics
        connections, processes = async_to_sync(server.counts)()
        answer = {
            "status": "running",
            "connections": connections,
            "healthy": server.serving.ready,
            "engines": {role: {"state": engine["state"]} for role, engine in engines.items()},
            "models": {role: engine["model"] for role, engine in engines.items()},
            "version": server.version,
        }
        if full:
            answer |= {"turns_running": server.registry.running, "engines": engines}
        if full and processes:
            answer["processes"] = [each.as_json() for each in processes]
        return Response(answer)


def model_name(model: str) -> str:
    """A model's name without the folders of this machine; a Hub id stays whole."""
    return PurePath(model).name if model.startswith(("/", ".", "~")) else model

"""What this process can say of itself at this moment, for the dashboard."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from asgiref.sync import async_to_sync
from django.http import HttpRequest

from accounts.connection_slots import Capacity, capacity
from inference.engines.status import EngineStatus
from inference.http.views import SCOPE_KEY, ServerStatus

logger = logging.getLogger("yap.dashboard")

_LABELS = {"ready": "success", "starting": "warning", "draining": "warning", "dead": "danger", "stopped": "danger"}


@dataclass(frozen=True, slots=True)
class EngineStatusRow:
    """One engine, in an operator's words. Percentages are None while nothing is known."""

    role: str
    model: str
    state: str
    reason: str
    label: str
    kv_percent: float | None
    hit_percent: float | None
    running: int
    waiting: int
    details: str


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """``connections`` counts all processes that share a Redis, ``turns_running`` this one."""

    state: str
    label: str
    reason: str
    connections: Capacity
    turns_running: int
    engines: list[EngineStatusRow] = field(default_factory=list)
    generated: int | None = None
    """Tokens that the engines have generated since they were built; None where they do not count."""


def live_status(request: HttpRequest) -> LiveStatus | None:
    """None in a process that serves no conversation (a test, WSGI)."""
    server: ServerStatus | None = getattr(request, "scope", {}).get(SCOPE_KEY)
    if server is None:
        return None
    engines = server.serving.engines.status()
    counted = [engine.stats["generated"] for engine in engines.values() if engine.stats and "generated" in engine.stats]
    state = server.state()
    return LiveStatus(
        state=state,
        label=_LABELS[state],
        reason=server.readiness()[1],
        connections=_connections(server),
        turns_running=server.registry.running,
        engines=[_engine(engine) for engine in engines.values()],
        generated=sum(counted) if counted else None,
    )


def _connections(server: ServerStatus) -> Capacity:
    try:
        return async_to_sync(server.slots.snapshot)()
    except Exception as error:  # Redis is away: the page says what this process knows
        logger.warning("slots cannot be counted: %s", type(error).__name__)
        return capacity(len(server.registry), len(server.registry))


def _engine(engine: EngineStatus) -> EngineStatusRow:
    stats, launch = engine.stats or {}, engine.launch
    details = [str(launch[name]) for name in ("device", "dtype", "quantization") if launch.get(name)]
    parallel = ("tensor_parallel", "pipeline_parallel", "data_parallel", "executor")
    details += [f"{name.replace('_', ' ')} {launch[name]}" for name in parallel if launch.get(name)]
    if launch.get("gpus"):
        details.append("GPU " + ", ".join(map(str, launch["gpus"])))
    if engine.replicas:
        details.append(f"{sum(state == 'ready' for state in engine.replicas)} of {len(engine.replicas)} replicas ready")
    if engine.rebuilds:
        details.append(f"rebuilt {engine.rebuilds} times")
    return EngineStatusRow(
        role=str(engine.role),
        model=engine.model.rstrip("/").rpartition("/.models/")[2] or engine.model,
        state=str(engine.state),
        reason=engine.reason,
        label=_LABELS[str(engine.state)],
        kv_percent=_percent(stats.get("kv_usage")),
        hit_percent=_percent(stats.get("prefix_hit_rate")),
        running=stats.get("running", 0),
        waiting=stats.get("waiting", 0),
        details=" · ".join(details),
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)

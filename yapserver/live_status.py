"""What the processes that share a Redis can say of themselves at this moment, for the dashboard."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import async_to_sync
from django.http import HttpRequest

from accounts.connection_slots import Capacity, capacity
from inference.engines.base import EngineState
from inference.engines.status import EngineStatus, combined
from inference.http.views import SCOPE_KEY, ServerStatus
from inference.process_report import ProcessReport

logger = logging.getLogger("yap.dashboard")

_LABELS = {"ready": "success", "starting": "warning", "draining": "warning", "dead": "danger", "stopped": "danger"}


@dataclass(frozen=True, slots=True)
class EngineStatusRow:
    """The engines of one role and model in all processes, in an operator's words.

    Percentages are None while nothing is known.
    """

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
class ProcessRow:
    """One process in the list. ``engines`` is text: ``chat ready, tool ready``."""

    host: str
    pid: int
    version: str
    state: str
    label: str
    engines: str
    connections: int
    turns_running: int
    here: bool
    """Whether this process has rendered the page."""


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """State and reason are those of this process; everything else counts all processes that share a Redis."""

    state: str
    label: str
    reason: str
    connections: Capacity
    turns_running: int
    engines: list[EngineStatusRow] = field(default_factory=list)
    counters: dict[str, tuple[int, float]] = field(default_factory=dict)
    """For each process whose engines count: tokens since they were built, and that process's clock in seconds."""
    processes: list[ProcessRow] = field(default_factory=list)
    """Empty without Redis."""
    partial: bool = False
    """Redis does not answer: other processes are not shown."""


def live_status(request: HttpRequest) -> LiveStatus | None:
    """None in a process that serves no conversation (a test, WSGI)."""
    server: ServerStatus | None = getattr(request, "scope", {}).get(SCOPE_KEY)
    if server is None:
        return None
    connections, processes = _counts(server)
    reports = processes or [server.report()]
    here = reports[0]
    return LiveStatus(
        state=here.state,
        label=_LABELS[here.state],
        reason=here.reason,
        connections=connections,
        turns_running=sum(each.turns_running for each in reports),
        engines=_engines(reports),
        counters={each.name: (each.generated, each.at) for each in reports if each.generated is not None},
        processes=[_process(each, here=each is here) for each in processes],
        partial="redis" in server.degraded(),
    )


def _counts(server: ServerStatus) -> tuple[Capacity, list[ProcessReport]]:
    try:
        return async_to_sync(server.counts)()
    except Exception as error:  # the page says what this process knows
        logger.warning("slots cannot be counted: %s", type(error).__name__)
        return capacity(server.registry.connections, server.registry.connections), []


def _process(report: ProcessReport, here: bool) -> ProcessRow:
    return ProcessRow(
        host=report.host,
        pid=report.pid,
        version=report.version,
        state=report.state,
        label=_LABELS.get(report.state, "warning"),
        engines=", ".join(f"{role} {engine.state}" for role, engine in report.engines.items()),
        connections=report.connections,
        turns_running=report.turns_running,
        here=here,
    )


def _engines(reports: Sequence[ProcessReport]) -> list[EngineStatusRow]:
    """One row for each role and model, this process's first."""
    groups: dict[tuple[str, str], list[EngineStatus]] = {}
    for report in reports:
        for engine in report.engines.values():
            groups.setdefault((str(engine.role), engine.model), []).append(engine)
    return [_engine(group) for group in groups.values()]


def _engine(group: Sequence[EngineStatus]) -> EngineStatusRow:
    """Sum up the engines of one role and model; requests are added, percentages are means."""
    ready = [engine for engine in group if engine.state is EngineState.READY]
    shown = (ready or group)[0]
    broken = next((engine for engine in group if engine.reason), shown)
    stats, launch = combined([engine.stats for engine in group if engine.stats]) or {}, shown.launch
    details = [str(launch[name]) for name in ("device", "dtype", "quantization") if launch.get(name)]
    parallel = ("tensor_parallel", "pipeline_parallel", "data_parallel", "executor")
    details += [f"{name.replace('_', ' ')} {launch[name]}" for name in parallel if launch.get(name)]
    if launch.get("gpus") and len(group) == 1:
        details.append("GPU " + ", ".join(map(str, launch["gpus"])))
    replicas = [state for engine in group for state in engine.replicas]
    if replicas:
        details.append(f"{sum(state == 'ready' for state in replicas)} of {len(replicas)} replicas ready")
    if len(group) > 1:
        details.append(f"ready in {len(ready)} of {len(group)} processes")
    if rebuilds := sum(engine.rebuilds for engine in group):
        details.append(f"rebuilt {rebuilds} times")
    return EngineStatusRow(
        role=str(shown.role),
        model=shown.model.rstrip("/").rpartition("/.models/")[2] or shown.model,
        state=str(shown.state),
        reason=broken.reason,
        label=_LABELS[str(shown.state)] if len(ready) in (0, len(group)) else "warning",
        kv_percent=_percent(stats, "kv_usage"),
        hit_percent=_percent(stats, "prefix_hit_rate"),
        running=stats.get("running", 0),
        waiting=stats.get("waiting", 0),
        details=" · ".join(details),
    )


def _percent(stats: Any, name: str) -> float | None:
    share = stats.get(name)
    return None if share is None else round(100 * share, 1)

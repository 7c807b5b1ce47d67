"""The state of one serving process, as it reports to the other processes, for the dashboard and ``/status``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import orjson

from inference.engines.base import EngineRole, EngineState
from inference.engines.status import EngineStatus

MAX_REASON = 300
"""Characters of a reason that a report keeps."""


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """One process at one moment.

    Attributes:
        host: name of the machine or container.
        pid: process id on that host.
        version: of the server.
        state: ``ready``, ``starting``, ``dead`` or ``draining``.
        reason: why it is not ready; empty where it is.
        connections: open WebSocket connections of this process.
        turns_running: turns running in this process.
        started: Unix time of the start, seconds.
        at: the process's own monotonic clock at the report, seconds; for rates between two reports.
        engines: the engines by role.
    """

    host: str
    pid: int
    version: str
    state: str
    reason: str = ""
    connections: int = 0
    turns_running: int = 0
    started: float = 0.0
    at: float = 0.0
    engines: Mapping[str, EngineStatus] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A name that no other process has, also where a container reuses host name and process id."""
        return f"{self.host}/{self.pid}/{self.started:.3f}"

    @property
    def generated(self) -> int | None:
        """Tokens that the engines have generated since they were built; None where they do not count."""
        counted = [one.stats["generated"] for one in self.engines.values() if one.stats and "generated" in one.stats]
        return sum(counted) if counted else None

    def as_json(self) -> dict[str, Any]:
        """Return the fields of ``/status``: each engine by its state."""
        shown = ("host", "pid", "version", "state", "connections", "turns_running")
        engines = {role: str(engine.state) for role, engine in self.engines.items()}
        return {name: getattr(self, name) for name in shown} | {"engines": engines}


def encode(report: ProcessReport) -> bytes:
    """Return a report as JSON."""
    return orjson.dumps(report)


def decode(data: bytes) -> ProcessReport:
    """Read what :func:`encode` has written, also in another version of the server.

    Fields that this version does not know are ignored; fields with a default may be absent.

    Raises:
        ValueError: not a report.
    """
    try:
        loaded: dict[str, Any] = orjson.loads(data)
        engines = {role: _engine(each) for role, each in loaded.get("engines", {}).items()}
        return ProcessReport(**_known(ProcessReport, loaded) | {"engines": engines})
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise ValueError(f"not a report of a process: {error}") from error


def _engine(loaded: dict[str, Any]) -> EngineStatus:
    states = {"replicas": [EngineState(each) for each in loaded.get("replicas", ())]}
    enums = {"role": EngineRole(loaded["role"]), "state": EngineState(loaded["state"])}
    return EngineStatus(**_known(EngineStatus, loaded) | enums | states)


def _known(kind: type[Any], loaded: dict[str, Any]) -> dict[str, Any]:
    return {each.name: loaded[each.name] for each in fields(kind) if each.name in loaded}

"""The state of the engines of one role, for ``/status``, the dashboard and the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from inference.engines.base import EngineRole, EngineState
from inference.engines.managed_engine import ManagedEngine


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One role.

    Attributes:
        role: ``chat`` or ``tool``.
        model: Hub id or folder.
        state: of the role: ``ready`` where any replica answers.
        reason: why it is not ready, or why a replica is not; empty where there is nothing to say.
        since: Unix time of the last change of state, seconds.
        max_model_len: the context, tokens.
        rebuilds: how many times its engines were replaced.
        launch: what was chosen for this machine: ``device``, ``dtype``, ``quantization``, ``tensor_parallel`` …
        stats: the engine's own numbers, summed over the replicas that answer; None where none does. ``running`` and
            ``waiting`` are requests, ``kv_usage`` and ``prefix_hit_rate`` fractions, ``generated`` tokens.
        replicas: the state of each replica; empty where there is only one.
    """

    role: EngineRole
    model: str
    state: EngineState
    reason: str
    since: float
    max_model_len: int
    rebuilds: int
    launch: Mapping[str, Any] = field(default_factory=dict)
    stats: Mapping[str, Any] | None = None
    replicas: Sequence[EngineState] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the fields for a JSON answer; ``launch`` becomes fields of its own, absent fields are left out."""
        fields = asdict(self) | dict(self.launch)
        del fields["launch"]
        if self.stats is None:
            del fields["stats"]
        if not self.replicas:
            del fields["replicas"]
        return {name: str(value) if name in ("role", "state") else value for name, value in fields.items()}


def status_of(replicas: Sequence[ManagedEngine]) -> EngineStatus:
    """Return the status of one role from its replicas, at least one."""
    shown = next((one for one in replicas if one.answers), replicas[0])
    broken = next((one for one in replicas if not one.answers), shown)
    engine = next((one.engine for one in replicas if one.engine is not None), None)
    return EngineStatus(
        role=shown.spec.role,
        model=shown.spec.model,
        state=shown.state,
        reason=shown.reason or broken.reason,
        since=shown.since,
        max_model_len=shown.spec.max_model_len,
        rebuilds=sum(max(0, one.generation - 1) for one in replicas),
        launch=engine.launch_info() if engine is not None else {},
        stats=combined([one.engine.stats() for one in replicas if one.engine is not None and one.answers]),
        replicas=[one.state for one in replicas] if len(replicas) > 1 else (),
    )


def combined(stats: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Add up the numbers of several engines; fractions become their mean. None for no engine.

    A number that an engine does not have counts as 0: engines of another process may be those of another version.
    """
    if len(stats) < 2:
        return dict(stats[0]) if stats else None
    total: dict[str, Any] = {name: sum(one.get(name, 0) for one in stats) for name in stats[0]}
    for name in ("kv_usage", "prefix_hit_rate"):
        if name in total:
            total[name] = total[name] / len(stats)
    return total

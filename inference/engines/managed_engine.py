"""State of one engine replica: its spec, the current engine (or None), its lifecycle state and its rebuild counters."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from inference.engines.base import Engine, EngineState
from inference.engines.spec import EngineSpec

logger = logging.getLogger(__name__)

# Seconds that a build is assumed to take before one was measured.
FIRST_BUILD_S = 60.0


class OwnedEngine(Engine, Protocol):
    """The calls that only the engine service makes."""

    registry: Any
    """The engine's own ``prometheus_client.CollectorRegistry``; None where it has none."""

    async def bind(self) -> None:
        """Bind the engine's sockets to the running loop."""
        ...

    def shutdown(self, timeout: float) -> None:
        """End the engine's processes. Blocks for up to ``timeout`` seconds."""
        ...

    def launch_info(self) -> Mapping[str, Any]:
        """Return what was chosen for this machine, for people."""
        ...


@dataclass(slots=True)
class ManagedEngine:
    """One replica of one role.

    Attributes:
        spec: the engine that is wanted.
        state: where the engine is in its life.
        reason: why it is in this state; empty where there is nothing to say.
        engine: the engine; None while there is none.
        since: Unix time of the last change of state, seconds.
        entered: the same on the monotonic clock.
        generation: how many times it was built.
        failures: rebuilds in a row that failed, or that did not live long.
        build_s: seconds of the last build.
    """

    spec: EngineSpec
    state: EngineState = EngineState.STARTING
    reason: str = "waiting to be built"
    engine: OwnedEngine | None = None
    since: float = field(default_factory=time.time)
    entered: float = field(default_factory=time.monotonic)
    generation: int = 0
    failures: int = 0
    build_s: float = FIRST_BUILD_S

    def enter(self, state: EngineState, reason: str = "") -> None:
        """Change the state and log the change."""
        self.state, self.reason = state, reason
        self.since, self.entered = time.time(), time.monotonic()
        log = logger.error if state is EngineState.DEAD else logger.info
        log("%s engine %s%s", self.spec.name, state, f": {reason}" if reason else "")

    @property
    def answers(self) -> bool:
        """Whether the engine takes requests."""
        return self.state is EngineState.READY and self.engine is not None and self.engine.alive

    @property
    def process_name(self) -> str:
        """The name under which the supervisor knows this generation's processes."""
        return f"{self.spec.name}-{self.generation}"

"""State of one engine role: its spec, the current engine (or None), lifecycle state and rebuild counters."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from inference.engines.base import Engine, EngineState
from inference.engines.spec import EngineSpec

logger = logging.getLogger(__name__)

# Assumed duration of a build before one was measured.
FIRST_BUILD_S = 60.0


class OwnedEngine(Engine, Protocol):
    """The engine as its service sees it; only the service binds and shuts down."""

    registry: Any

    async def bind(self) -> None: ...
    def shutdown(self, timeout: float) -> None: ...
    def launch_info(self) -> Mapping[str, Any]: ...


@dataclass(slots=True)
class ManagedEngine:
    """One engine role: the spec, the current engine (None: none), the state with its reason, and build statistics."""

    spec: EngineSpec
    state: EngineState = EngineState.STARTING
    reason: str = "waiting for its turn"
    engine: OwnedEngine | None = None
    since: float = field(default_factory=time.time)
    entered: float = field(default_factory=time.monotonic)
    generation: int = 0
    failures: int = 0
    build_s: float = FIRST_BUILD_S

    def enter(self, state: EngineState, reason: str = "") -> None:
        self.state, self.reason = state, reason
        self.since, self.entered = time.time(), time.monotonic()
        log = logger.error if state is EngineState.DEAD else logger.info
        log("%s engine %s%s", self.spec.role, state, f": {reason}" if reason else "")

    @property
    def answers(self) -> bool:
        return self.state is EngineState.READY and self.engine is not None and self.engine.alive

    @property
    def name(self) -> str:
        return f"{self.spec.role}-{self.generation}"

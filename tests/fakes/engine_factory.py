"""A factory of fake engines, for tests of the service that builds them."""

from __future__ import annotations

import threading

from inference.engines.base import EngineRole
from inference.engines.managed_engine import OwnedEngine
from inference.engines.spec import EngineSpec
from tests.fakes.engine import FakeEngine

CHAT = EngineSpec(EngineRole.CHAT, "chat-model", 2048, alone=False)
TOOL = EngineSpec(EngineRole.TOOL, "tool-model", 1024, alone=False)


class Factory:
    """Builds fakes and records them. `hold` blocks builders; `errors` are raised, one per build (None: that build
    succeeds).
    """

    def __init__(self) -> None:
        self.made: list[FakeEngine] = []
        self.threads: list[threading.Thread] = []
        self.hold = threading.Event()
        self.hold.set()
        self.errors: list[Exception | None] = []
        self.at_once = 0
        self.most_at_once = 0

    def __call__(self, spec: EngineSpec) -> OwnedEngine:
        self.threads.append(threading.current_thread())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            assert self.hold.wait(10)
            if self.errors and (error := self.errors.pop(0)) is not None:
                raise error
            self.made.append(FakeEngine(spec.role, model=spec.model, max_model_len=spec.max_model_len))
            return self.made[-1]
        finally:
            self.at_once -= 1

"""Builds, warms, replaces and ends one engine replica at a time."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext

from inference.engines.base import EngineDead, EngineState
from inference.engines.managed_engine import ManagedEngine, OwnedEngine
from inference.engines.spec import EngineSpec, ModelRefused
from inference.engines.startup_requests import StartupPrompts, run_startup_requests
from inference.engines.supervisor import ProcessSupervisor

logger = logging.getLogger(__name__)

POLL_S = 0.5
# Rebuilds in a row that fail or do not live for HEALTHY_S; after them an operator has to act.
MAX_REBUILDS = 5
HEALTHY_S = 300.0
MAX_BACKOFF_S = 30.0
REPLACED_SHUTDOWN_S = 1.0

EngineFactory = Callable[[EngineSpec], OwnedEngine]


class EngineLifecycle:
    """Runs the lifecycle of engine replicas.

    Args:
        factory: builds one engine; blocks for seconds to minutes.
        supervisor: owns the engines' processes; None where they have none.
        startup_prompts: returns the prompts, as ids of an engine's tokenizer, that a new engine computes first.
        backoff_s: pause before the second rebuild, seconds; doubled each time, up to :data:`MAX_BACKOFF_S`.
        rebuild_timeout_s: how long a rebuild may take, seconds; four times the last build where that is longer.
    """

    def __init__(
        self,
        factory: EngineFactory,
        supervisor: ProcessSupervisor | None,
        startup_prompts: StartupPrompts,
        backoff_s: float,
        rebuild_timeout_s: float,
    ) -> None:
        self._factory = factory
        self._supervisor = supervisor
        self._startup_prompts = startup_prompts
        self._backoff_s = backoff_s
        self._rebuild_timeout_s = rebuild_timeout_s
        # vLLM edits the process's environment while it builds, so one engine is built at a time.
        self._building = threading.Lock()
        self._closing = False

    # -- building ----------------------------------------------------------------------------------

    def build_all(self, engines: Iterable[ManagedEngine]) -> None:
        """Build engines one after the other. Blocks; raises what the first failing build raises."""
        if self._supervisor is not None:
            self._supervisor.start()
        for managed in engines:
            self.build(managed)

    def build(self, managed: ManagedEngine) -> None:
        """Build one engine. Blocks. A build that fails leaves no process behind."""
        with self._building:
            if self._closing:
                raise EngineDead("the server is stopping")
            managed.generation += 1
            managed.enter(EngineState.STARTING, f"loading {managed.spec.model}")
            begin = time.monotonic()
            name = managed.process_name
            try:
                with self._supervisor.mark_new_processes(name) if self._supervisor is not None else nullcontext():
                    managed.engine = self._factory(managed.spec)
            except BaseException as error:
                managed.enter(EngineState.DEAD, first_line(error))
                self.kill(managed)
                raise
            managed.build_s = time.monotonic() - begin
            managed.reason = "built"

    async def warm(self, managed: ManagedEngine) -> None:
        """Run a new engine's start-up requests on the running loop; afterwards it is ready.

        Raises:
            EngineDead: the engine died meanwhile.
            TimeoutError: the requests did not end in time.
        """
        assert managed.engine is not None
        begin = time.monotonic()
        managed.reason = "warming"
        await run_startup_requests(managed.engine, managed.process_name, self._startup_prompts)
        managed.build_s += time.monotonic() - begin
        managed.enter(EngineState.READY)

    async def replace(self, managed: ManagedEngine) -> bool:
        """Build another engine in the place of a dead one.

        Returns:
            False where that was given up: the model is refused, or :data:`MAX_REBUILDS` builds in a row failed.
        """
        while managed.failures < MAX_REBUILDS:
            managed.failures += 1
            await self.discard(managed, REPLACED_SHUTDOWN_S)
            if managed.failures > 1:
                await asyncio.sleep(min(self._backoff_s * 2 ** (managed.failures - 2), MAX_BACKOFF_S))
            try:
                await self._build_in_time(managed)
                await self.warm(managed)
            except ModelRefused:
                return False
            except Exception as error:
                if managed.state is not EngineState.DEAD:
                    managed.enter(EngineState.DEAD, first_line(error))
            else:
                return True
        return False

    async def _build_in_time(self, managed: ManagedEngine) -> None:
        """Build in a thread. A build that hangs fails once its processes are killed."""
        until = time.monotonic() + max(self._rebuild_timeout_s, 4 * managed.build_s)
        build = asyncio.create_task(asyncio.to_thread(self.build, managed))
        while not (await asyncio.wait({build}, timeout=POLL_S))[0]:
            if time.monotonic() > until:
                await asyncio.to_thread(self.kill, managed)
        build.result()

    # -- ending ------------------------------------------------------------------------------------

    async def discard(self, managed: ManagedEngine, timeout_s: float) -> None:
        """Shut an engine down and kill what is left of its processes.

        Args:
            managed: the engine.
            timeout_s: how long a clean shutdown may take, seconds.
        """
        engine, managed.engine = managed.engine, None
        if engine is not None:
            try:
                await asyncio.to_thread(engine.shutdown, timeout_s)
            except Exception:
                logger.exception("the %s engine did not shut down cleanly", managed.spec.name)
        await asyncio.to_thread(self.kill, managed)

    def kill(self, managed: ManagedEngine) -> int:
        """SIGKILL the processes of one engine. Returns how many there were."""
        return 0 if self._supervisor is None else self._supervisor.kill(managed.process_name)

    def kill_all(self) -> None:
        """SIGKILL every engine process of this server."""
        if self._supervisor is not None:
            self._supervisor.kill_all()

    def refuse_builds(self) -> None:
        """Let no further build begin."""
        self._closing = True

    def end_running_build(self) -> None:
        """Wait until no build runs. Blocks. A running build fails once its processes are killed."""
        while not self._building.acquire(timeout=0.2):
            self.kill_all()
        self._building.release()

    def close(self) -> None:
        """End the supervisor's guard process."""
        if self._supervisor is not None:
            self._supervisor.close()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type's name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

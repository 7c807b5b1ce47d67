"""Owns the engines of this server: starts them, watches them, replaces dead ones, shuts them down.

Engines are built in a thread, one after the other. The parts that belong to an event loop (binding, warming, watching)
start with the first :meth:`EngineService.ensure_running` on the serving loop. A failure before all engines were ready
once is final; afterwards a dead engine is replaced.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from inference.engines import lifecycle
from inference.engines.base import Engine, EngineDead, EngineRole, EngineState
from inference.engines.lifecycle import EngineFactory, EngineLifecycle, first_line
from inference.engines.managed_engine import ManagedEngine, OwnedEngine
from inference.engines.replica_router import ReplicaRouter
from inference.engines.spec import EngineSpec
from inference.engines.startup_requests import StartupPrompts
from inference.engines.status import EngineStatus, status_of
from inference.engines.supervisor import ProcessSupervisor

logger = logging.getLogger(__name__)

SHUTDOWN_S = 15.0


class EngineService:
    """Owns the deployed engines.

    Args:
        specs: one spec for each engine; several of one role are replicas of each other.
        factory: builds one engine; blocks.
        supervisor: owns the engines' processes; None where they have none.
        startup_prompts: returns the prompts, as ids of an engine's tokenizer, that a new engine computes first.
        backoff_s: pause before a second rebuild, seconds.
        rebuild_timeout_s: how long a rebuild may take, seconds.
    """

    def __init__(
        self,
        specs: Sequence[EngineSpec],
        factory: EngineFactory,
        *,
        supervisor: ProcessSupervisor | None = None,
        startup_prompts: StartupPrompts = lambda engine: (),
        backoff_s: float = 1.0,
        rebuild_timeout_s: float = 180.0,
    ) -> None:
        self._engines = [ManagedEngine(spec) for spec in specs]
        self._roles = {
            role: replicas
            for role in EngineRole
            if (replicas := [one for one in self._engines if one.spec.role is role])
        }
        self._routers = {
            role: ReplicaRouter(role, lambda ones=replicas: [one.engine if one.answers else None for one in ones])  # type: ignore[misc]
            for role, replicas in self._roles.items()
            if len(replicas) > 1
        }
        self._lifecycle = EngineLifecycle(factory, supervisor, startup_prompts, backoff_s, rebuild_timeout_s)
        self._built: Future[None] | None = None
        self._starting = threading.Lock()
        self._start_task: asyncio.Task[None] | None = None
        self._watch_task: asyncio.Task[None] | None = None
        self._rebuilds: dict[str, asyncio.Task[None]] = {}
        self._was_ready = False
        self.failure: str | None = None
        """Why this server will not become ready, or not again; None otherwise."""

    # -- state -------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether turns can run.

        At the start every engine must answer. Afterwards a tool engine that is being replaced beside a working chat
        engine does not count: its decisions are no meanwhile.
        """
        if not self._was_ready:
            return all(one.answers for one in self._engines)
        if EngineRole.CHAT in self._roles:
            return self._answers(EngineRole.CHAT)
        return all(map(self._answers, self._roles))

    def degraded(self) -> list[str]:
        """Return the roles with an engine that does not answer, although all were ready once."""
        if not self._was_ready:
            return []
        return [str(role) for role, replicas in self._roles.items() if not all(one.answers for one in replicas)]

    def engine(self, role: EngineRole) -> Engine:
        """Return the engine of a role; for several replicas the router in front of them.

        Raises:
            EngineDead: no engine of this role is deployed, or none is ready.
        """
        replicas = self._roles.get(role)
        if replicas is None:
            raise EngineDead(f"no {role} engine is deployed")
        if self._answers(role):
            router = self._routers.get(role)
            engine = replicas[0].engine
            if router is not None:
                return router
            assert engine is not None
            return engine
        first = replicas[0]
        state = EngineState.DEAD if first.state is EngineState.READY else first.state
        raise EngineDead(f"the {role} engine is {state}{f': {first.reason}' if first.reason else ''}")

    def deployed(self, role: EngineRole) -> bool:
        """Whether this server runs an engine of this role."""
        return role in self._roles

    @property
    def retry_in(self) -> int:
        """Whole seconds, at least 1, after which all engines may be ready."""
        waits = [
            one.build_s - (time.monotonic() - one.entered if one.generation else 0.0)
            for one in self._engines
            if not one.answers
        ]
        return max(1, math.ceil(sum(max(wait, 1.0) for wait in waits)))

    def status(self) -> dict[str, EngineStatus]:
        """Return the status of each deployed role."""
        return {role.value: status_of(replicas) for role, replicas in self._roles.items()}

    def registries(self) -> dict[str, Any]:
        """Return each engine's own Prometheus registry by the engine's name, where it has one."""
        engines = {one.spec.name: one.engine for one in self._engines}
        return {name: engine.registry for name, engine in engines.items() if engine is not None and engine.registry}

    def _answers(self, role: EngineRole) -> bool:
        return any(one.answers for one in self._roles[role])

    # -- starting ----------------------------------------------------------------------------------

    def start_building(self) -> None:
        """Start to build in a thread and return at once. Idempotent; for the import of the ASGI module."""
        with self._starting:
            if self._built is None:
                self._built = Future()
                atexit.register(self._at_exit)
                threading.Thread(target=self._build_all, args=(self._built,), name="engines", daemon=True).start()

    async def ensure_running(self) -> None:
        """Wait until all engines are ready. The first caller's loop serves; later callers share its start.

        Raises:
            EngineDead: the engines do not start; the message is the reason.
        """
        if self._start_task is None:
            self._start_task = asyncio.create_task(self._start(), name="engines")
        try:
            await asyncio.shield(self._start_task)
        except asyncio.CancelledError:
            if self._start_task.cancelled():
                raise EngineDead("the server is stopping") from None
            raise

    def _build_all(self, built: Future[None]) -> None:
        try:
            self._lifecycle.build_all(self._engines)
        except BaseException as error:
            built.set_exception(error)
        else:
            built.set_result(None)

    async def _start(self) -> None:
        self.start_building()
        assert self._built is not None
        try:
            await _result_of(self._built)
            for managed in self._engines:
                await self._lifecycle.warm(managed)
        except Exception as error:
            self.failure = first_line(error)
            for managed in self._engines:
                if managed.state is not EngineState.DEAD:
                    managed.enter(EngineState.DEAD, self.failure)
            await self._discard_all()
            raise EngineDead(self.failure) from error
        self._was_ready = True
        self._watch_task = asyncio.create_task(self._watch(), name="engine watch")

    # -- watching ----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            for managed in self._engines:
                if managed.state is EngineState.READY and not managed.answers:
                    if time.monotonic() - managed.entered > lifecycle.HEALTHY_S:
                        managed.failures = 0
                    managed.enter(EngineState.DEAD, "its process died")
                    name = managed.spec.name
                    self._rebuilds[name] = asyncio.create_task(self._replace(managed), name=f"rebuild {name}")
            await asyncio.sleep(lifecycle.POLL_S)

    async def _replace(self, managed: ManagedEngine) -> None:
        if await self._lifecycle.replace(managed):
            return
        problem = f"the {managed.spec.name} engine could not be replaced: {managed.reason}"
        logger.error("%s", problem)
        if not self.ready:
            self.failure = problem

    # -- ending ------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End every engine and every process of theirs. Idempotent; the service cannot be started again."""
        self._lifecycle.refuse_builds()
        tasks = [task for task in (self._watch_task, self._start_task, *self._rebuilds.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(self._lifecycle.end_running_build)
        for task in tasks:
            with suppress(asyncio.CancelledError, Exception):
                await task
        await self._discard_all()
        for managed in self._engines:
            if managed.state is not EngineState.STOPPED:
                managed.enter(EngineState.STOPPED)
        await asyncio.to_thread(self._lifecycle.close)
        atexit.unregister(self._at_exit)

    async def _discard_all(self) -> None:
        await asyncio.gather(*(self._lifecycle.discard(managed, SHUTDOWN_S) for managed in self._engines))
        await asyncio.to_thread(self._lifecycle.kill_all)

    def kill_processes(self, role: EngineRole, replica: int | None = None) -> int:
        """SIGKILL the processes of a role's engines, for engines that hang. The watch then replaces them.

        Args:
            role: the role.
            replica: the index of one replica; None for all.

        Returns:
            How many processes there were.
        """
        replicas = self._roles[role] if replica is None else [self._roles[role][replica]]
        return sum(self._lifecycle.kill(managed) for managed in replicas)

    def _at_exit(self) -> None:
        """Kill the processes at an exit that did not call :meth:`aclose`, for instance a reloader's."""
        self._lifecycle.refuse_builds()
        self._lifecycle.kill_all()
        self._lifecycle.close()


def vllm_service(
    specs: Sequence[EngineSpec], checkout: str, startup_prompts: StartupPrompts = lambda engine: ()
) -> EngineService:
    """Return the service that runs vLLM engines, with supervised processes of the checkout at this path."""
    from inference.engines.vllm_engine import build

    return EngineService(specs, build, supervisor=ProcessSupervisor(checkout), startup_prompts=startup_prompts)


def build_vllm_engine(spec: EngineSpec) -> OwnedEngine:
    """Build one vLLM engine outside a service, for commands. Blocks; the caller binds it and shuts it down.

    Raises:
        ModelRefused: the engine cannot run on this machine.
    """
    from inference.engines.vllm_engine import build

    return build(spec)


async def _result_of(future: Future[None]) -> None:
    """Wait for a thread's work. Cancelling the wait does not affect the work."""
    here = asyncio.wrap_future(future)
    here.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait({here})
    here.result()

"""Owns the engines: builds them in a thread, warms them, restarts dead ones, shuts them down.

A build blocks for up to minutes, so it runs in its own thread, one engine after the other. The loop-bound part
(binding, warming, watching) starts with the first :meth:`EngineService.ensure_running` on the serving loop. A dead
engine is replaced; an engine that dies before all were ready once is a failed start.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from typing import Any

from inference.engines.base import Engine, EngineDead, EngineRole, EngineState
from inference.engines.build_outcome import first_line, outcome
from inference.engines.managed_engine import ManagedEngine, OwnedEngine
from inference.engines.spec import EngineSpec, ModelRefused
from inference.engines.startup_requests import WarmPrompts, warm
from inference.engines.supervisor import ProcessSupervisor

logger = logging.getLogger(__name__)

WATCH_S = 0.5
SHUTDOWN_S = 15.0
# Consecutive rebuilds that fail or live less than HEALTHY_S seconds; then the service gives up.
MAX_REBUILDS = 5
HEALTHY_S = 300.0

Factory = Callable[[EngineSpec], OwnedEngine]


class EngineService:
    """The deployed engines.

    Args:
        specs: the engines to run, in build order.
        factory: builds one engine; blocking.
        keeper: owns the engine processes; None: there are none.
        warm_prompts: prompts (token ids) to compute before the first turn.
        backoff: first pause before another attempt, seconds; doubled each time, at most 30.
        patience: limit of a rebuild in seconds; at least four times the duration of the last build.
    """

    def __init__(
        self,
        specs: Sequence[EngineSpec],
        factory: Factory,
        *,
        keeper: ProcessSupervisor | None = None,
        warm_prompts: WarmPrompts = lambda engine: (),
        backoff: float = 1.0,
        patience: float = 180.0,
    ) -> None:
        self._slots = {spec.role: ManagedEngine(spec) for spec in specs}
        self._factory = factory
        self._keeper = keeper
        self._warm_prompts = warm_prompts
        self._backoff = backoff
        self._patience = patience
        self._built: Future[None] | None = None
        self._starting = threading.Lock()
        self._building = threading.Lock()
        self._running: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._rebuilds: dict[EngineRole, asyncio.Task[None]] = {}
        self._closing = False
        self.failure: str | None = None
        """Why this server will not come up, or not come back; None while there is hope."""

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether every deployed engine answers."""
        return all(slot.answers for slot in self._slots.values())

    @property
    def chat(self) -> Engine:
        """The chat engine; raises :class:`EngineDead` while it is not ready."""
        return self.engine(EngineRole.CHAT)

    @property
    def tool(self) -> Engine:
        """The tool engine; raises :class:`EngineDead` while it is not ready."""
        return self.engine(EngineRole.TOOL)

    def engine(self, role: EngineRole) -> Engine:
        """Return the engine of a role.

        Raises:
            EngineDead: no such engine is deployed, or the engine is not ready.
        """
        slot = self._slots.get(role)
        if slot is None:
            raise EngineDead(f"no {role} engine is deployed")
        if slot.engine is None or not slot.answers:
            state = EngineState.DEAD if slot.state is EngineState.READY else slot.state
            raise EngineDead(f"the {role} engine is {state}{f': {slot.reason}' if slot.reason else ''}")
        return slot.engine

    def deployed(self, role: EngineRole) -> bool:
        """Return whether this server runs an engine of this role."""
        return role in self._slots

    @property
    def retry_in(self) -> int:
        """Seconds after which all engines may be ready: whole, at least 1."""
        waits = [
            slot.build_s - (time.monotonic() - slot.entered if slot.generation else 0.0)
            for slot in self._slots.values()
            if not slot.answers
        ]
        return max(1, math.ceil(sum(max(wait, 1.0) for wait in waits)))

    def status(self) -> dict[str, Any]:
        """Describe the engines.

        Returns:
            Per role: `model`, `state`, `reason`, `since` (Unix seconds), `max_model_len`, `rebuilds`, the launch
                facts, and the engine's `stats` while it is ready.
        """
        told: dict[str, Any] = {}
        for role, slot in self._slots.items():
            told[role.value] = {
                "role": role.value,
                "model": slot.spec.model,
                "state": slot.state.value,
                "reason": slot.reason,
                "since": slot.since,
                "max_model_len": slot.spec.max_model_len,
                "rebuilds": slot.generation - 1 if slot.generation else 0,
                **(slot.engine.launch_info() if slot.engine is not None else {}),
            }
            if slot.engine is not None and slot.answers:
                told[role.value]["stats"] = dict(slot.engine.stats())
        return told

    def registries(self) -> dict[EngineRole, Any]:
        """Return the Prometheus registry (`prometheus_client.CollectorRegistry`) of each engine that has one."""
        engines = {role: slot.engine for role, slot in self._slots.items()}
        return {role: engine.registry for role, engine in engines.items() if engine is not None and engine.registry}

    # -- starting --------------------------------------------------------------------------------------------------

    def start_building(self) -> None:
        """Start to build in a thread; returns at once. Idempotent; called while the ASGI module is imported."""
        with self._starting:
            if self._built is None:
                self._built = Future()
                atexit.register(self._at_exit)
                threading.Thread(target=self._build_all, args=(self._built,), name="engines", daemon=True).start()

    async def ensure_running(self) -> None:
        """Wait until all engines are ready. The first caller's loop becomes the serving loop; later callers share the
        start.

        Raises:
            EngineDead: an engine did not start; the message has the reason.
        """
        if self._running is None:
            self._running = asyncio.create_task(self._start(), name="engines")
        try:
            await asyncio.shield(self._running)
        except asyncio.CancelledError:
            if self._running.cancelled():
                raise EngineDead("the server is stopping") from None
            raise

    def _build_all(self, built: Future[None]) -> None:
        try:
            if self._keeper is not None:
                self._keeper.start()
            for slot in self._slots.values():
                with self._building:
                    self._build(slot)
        except BaseException as error:
            built.set_exception(error)
        else:
            built.set_result(None)

    def _build(self, slot: ManagedEngine) -> None:
        """Build an engine into a slot; blocking. A failure leaves no process behind."""
        if self._closing:
            raise EngineDead("the server is stopping")
        slot.generation += 1
        slot.enter(EngineState.STARTING, f"loading {slot.spec.model}")
        begin = time.monotonic()
        try:
            with self._keeper.marking(slot.name) if self._keeper is not None else nullcontext():
                slot.engine = self._factory(slot.spec)
        except BaseException as error:
            slot.enter(EngineState.DEAD, first_line(error))
            self._kill(slot)
            raise
        slot.build_s = time.monotonic() - begin
        slot.reason = "built"

    async def _start(self) -> None:
        self.start_building()
        assert self._built is not None
        try:
            await outcome(self._built)
            for slot in self._slots.values():
                await self._warm(slot)
        except Exception as error:
            self.failure = first_line(error)
            for slot in self._slots.values():
                if slot.state is not EngineState.DEAD:
                    slot.enter(EngineState.DEAD, self.failure)
            await self._stop_engines()
            raise EngineDead(self.failure) from error
        self._watcher = asyncio.create_task(self._watch(), name="engine watch")

    async def _warm(self, slot: ManagedEngine) -> None:
        assert slot.engine is not None
        begin = time.monotonic()
        slot.reason = "warming"
        await warm(slot.engine, slot.name, self._warm_prompts)
        slot.build_s += time.monotonic() - begin
        slot.enter(EngineState.READY)

    # -- watching --------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            for role, slot in self._slots.items():
                if slot.state is EngineState.READY and not slot.answers:
                    slot.failures = 0 if time.monotonic() - slot.entered > HEALTHY_S else slot.failures
                    slot.enter(EngineState.DEAD, "its process died")
                    self._rebuilds[role] = asyncio.create_task(self._replace(slot), name=f"rebuild {role}")
            await asyncio.sleep(WATCH_S)

    async def _replace(self, slot: ManagedEngine) -> None:
        """Replace a dead engine; engines are built one at a time."""
        while slot.failures < MAX_REBUILDS:
            slot.failures += 1
            await self._discard(slot, timeout=1.0)
            if slot.failures > 1:
                await asyncio.sleep(min(self._backoff * 2 ** (slot.failures - 2), 30.0))
            try:
                await self._build_in_time(slot)
                await self._warm(slot)
            except ModelRefused:
                break
            except Exception as error:
                if slot.state is not EngineState.DEAD:
                    slot.enter(EngineState.DEAD, first_line(error))
            else:
                return
        self.failure = f"the {slot.spec.role} engine could not be replaced: {slot.reason}"
        logger.error("%s", self.failure)

    async def _build_in_time(self, slot: ManagedEngine) -> None:
        """Build with a time limit: a hanging build fails once its processes are killed."""
        until = time.monotonic() + max(self._patience, 4 * slot.build_s)
        build = asyncio.create_task(asyncio.to_thread(self._build_alone, slot))
        while not (await asyncio.wait({build}, timeout=WATCH_S))[0]:
            if time.monotonic() > until:
                await asyncio.to_thread(self._kill, slot)
        build.result()

    def _build_alone(self, slot: ManagedEngine) -> None:
        with self._building:
            self._build(slot)

    # -- shutdown --------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Shut down all engines and their processes. Idempotent and final."""
        self._closing = True
        tasks = [task for task in (self._watcher, self._running, *self._rebuilds.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(self._end_building)
        for task in tasks:
            with suppress(asyncio.CancelledError, Exception):
                await task
        await self._stop_engines()
        for slot in self._slots.values():
            if slot.state is not EngineState.STOPPED:
                slot.enter(EngineState.STOPPED)
        if self._keeper is not None:
            await asyncio.to_thread(self._keeper.close)
        atexit.unregister(self._at_exit)

    async def _stop_engines(self) -> None:
        await asyncio.gather(*(self._discard(slot, SHUTDOWN_S) for slot in self._slots.values()))
        await asyncio.to_thread(self._kill_all)

    async def _discard(self, slot: ManagedEngine, timeout: float) -> None:
        engine, slot.engine = slot.engine, None
        if engine is not None:
            try:
                await asyncio.to_thread(engine.shutdown, timeout)
            except Exception:
                logger.exception("the %s engine did not shut down cleanly", slot.spec.role)
        await asyncio.to_thread(self._kill, slot)

    def kill_processes(self, role: EngineRole) -> int:
        """Kill the processes of one engine with SIGKILL, for an engine that hangs; the watch then builds another.

        Returns:
            The number of killed processes.
        """
        return self._kill(self._slots[role])

    def _kill(self, slot: ManagedEngine) -> int:
        return 0 if self._keeper is None else self._keeper.kill(slot.name)

    def _end_building(self) -> None:
        """End a running build by killing its processes; a build cannot be cancelled otherwise."""
        while not self._building.acquire(timeout=0.2):
            self._kill_all()
        self._building.release()

    def _kill_all(self) -> None:
        if self._keeper is not None:
            self._keeper.kill_all()

    def _at_exit(self) -> None:
        """Kill all processes at an exit without :meth:`aclose`, for example of a reloader."""
        self._closing = True
        if self._keeper is not None:
            self._keeper.kill_all()
            self._keeper.close()


def vllm_service(
    specs: Sequence[EngineSpec], checkout: str, warm_prompts: WarmPrompts = lambda engine: ()
) -> EngineService:
    """Create the production service: vLLM engines with supervised processes.

    Args:
        specs: the engines.
        checkout: path that marks the processes of this checkout.
        warm_prompts: prompts to compute before the first turn.
    """
    from inference.engines.vllm_engine import build

    return EngineService(specs, build, keeper=ProcessSupervisor(checkout), warm_prompts=warm_prompts)

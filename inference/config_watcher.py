"""What admins change, in force on every live connection within a second, in every process.

A change is announced on the channel layer after its commit; the announcement only says "look". What is then looked
at are
versions in the database, and they are looked at every second anyway: a message that was lost, a change made while Redis
was away or by a command in another process are all picked up. No token ever travels here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from channels.layers import get_channel_layer
from django.db import close_old_connections

from accounts.callers import Caller
from inference.engines.base import EngineDead, EngineRole
from inference.prefix_cache import prime
from inference.serving_context import ServingContext
from inference.session import Session
from inference.session_registry import SessionRegistry
from personas.snapshot import Catalogue, PersonaSnapshot

logger = logging.getLogger("yap.config")

T = TypeVar("T")

GROUP = "yap.config"
POLL_INTERVAL_S = 1.0
KEEP_WARM_EVERY_S = 20.0
WARM_PERSONAS_PER_KEY = 8
WARM_BEFORE_S = 0.2  # an edited persona waits this long for its prefix, then it is used all the same


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """Reads of the database, all synchronous; they run in the control thread, never on the serving loop."""

    version: Callable[[], int]
    catalogue: Callable[[], Catalogue]
    caller: Callable[[Caller], Caller | None]


class ConfigWatcher:
    """The one listener of a process."""

    def __init__(self, serving: ServingContext, registry: SessionRegistry, source: ConfigSource) -> None:
        self._serving = serving
        self._registry = registry
        self._source = source
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="control")
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Load the catalogue, then listen and look. On the serving loop."""
        self._loop = asyncio.get_running_loop()
        await self._refresh_catalogue()
        self._tasks = [
            asyncio.create_task(self._listen(), name="config listener"),
            asyncio.create_task(self._poll(), name="config poll"),
            asyncio.create_task(self._keep_warm(), name="keep personas warm"),
        ]

    async def aclose(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=False)

    def announce(self, topic: str, detail: str) -> None:
        """Tell every process that something changed. From any thread; never waits and never fails the change itself."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(self._changed.set)
        asyncio.run_coroutine_threadsafe(self._tell_others(topic, detail), loop)

    async def _tell_others(self, topic: str, detail: str) -> None:
        layer = get_channel_layer()
        if layer is None:
            return
        try:
            await layer.group_send(GROUP, {"type": "changed", "topic": topic, "detail": detail})
        except Exception as error:  # whatever the layer's client raises: the others will look within a second
            logger.warning("could not announce a change: %s", type(error).__name__)

    async def _listen(self) -> None:
        layer = get_channel_layer()
        while layer is not None:
            try:
                channel = await layer.new_channel(GROUP)
                await layer.group_add(GROUP, channel)
                self._changed.set()  # what was announced while nobody listened
                while True:
                    await layer.receive(channel)
                    self._changed.set()
            except Exception as error:
                logger.warning("control messages are cut off (%s), looking every second", type(error).__name__)
                await asyncio.sleep(POLL_INTERVAL_S)

    async def _poll(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL_S):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self._refresh_callers()
                await self._refresh_catalogue()
            except Exception as error:  # the database is away: what is in force stays
                logger.warning("could not look for changes: %s: %s", type(error).__name__, error)
                await asyncio.sleep(POLL_INTERVAL_S)

    async def _refresh_callers(self) -> None:
        """Keys that are connected, as they are now: those that ended are shown the admission, changed limits govern."""
        callers = {s.caller for s in self._registry if s.caller.key_id is not None or s.caller.expires_at is not None}
        if not callers:
            return
        fresh = await self._read(lambda: {caller: self._source.caller(caller) for caller in callers})
        revoked: list[Session] = []
        for session in self._registry:
            caller = fresh.get(session.caller, session.caller)
            if caller is None:
                revoked.append(session)
            elif caller is not session.caller and caller != session.caller:
                session.apply_caller(caller)
        # Side by side: a client that takes no frames shall not keep the others connected.
        await asyncio.gather(*(session.revoke() for session in revoked))

    async def _refresh_catalogue(self) -> None:
        resolver = self._serving.resolver
        if self._serving.started and await self._read(self._source.version) == resolver.catalogue.version:
            return
        held = [session.snapshot for session in self._registry if session.snapshot is not None]
        compiled = await self._read(lambda: resolver.phrases.compile(self._source.catalogue(), held))
        catalogue, before = compiled.catalogue, resolver.catalogue.personas
        changed = [persona for slug, persona in catalogue.personas.items() if persona != before.get(slug)]
        if self._serving.started and changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(WARM_BEFORE_S):
                    await self._warm(changed)
        resolver.phrases.install(compiled)
        logger.info(
            "catalogue version=%d personas=%d phrases=%d",
            catalogue.version,
            len(catalogue.personas),
            len(catalogue.phrases),
        )

    async def _read(self, read: Callable[[], T]) -> T:
        def in_thread() -> T:
            close_old_connections()
            return read()

        return await asyncio.get_running_loop().run_in_executor(self._thread, in_thread)

    # -- warmth ------------------------------------------------------------------------------------

    async def _keep_warm(self) -> None:
        """While no turn runs, compute the personas' prefixes again: the cache drops the prefixes used longest ago."""
        while True:
            if not self._registry.running:
                await self._warm(list(self._serving.resolver.catalogue.personas.values()))
            await asyncio.sleep(KEEP_WARM_EVERY_S)

    async def _warm(self, personas: list[PersonaSnapshot]) -> None:
        """Compute the prefixes of stored personas, once for each key that has a connection and may use them.

        Keys do not share cached prefixes, so each key's are computed with its own cache salt.
        """
        resolver, engines = self._serving.resolver, self._serving.engines
        if resolver.encoder.chat is None:
            return
        for salt, persona in self._salted(personas):
            try:
                await prime(engines.engine(EngineRole.CHAT), resolver.stored_prefix(persona), salt)
            except EngineDead:
                return
            except Exception as error:  # one persona that cannot be used must not end the warming of the others
                logger.warning("prefix of persona %s not computed: %s", persona.slug, error)

    def _salted(self, personas: list[PersonaSnapshot]) -> list[tuple[str | None, PersonaSnapshot]]:
        """Return (cache salt, persona) for each connected key: personas of running sessions first, at most
        ``WARM_PERSONAS_PER_KEY`` for each key. With a shared cache each persona once."""
        if self._serving.policy.share_prefixes:
            return [(None, persona) for persona in personas]
        by_salt: dict[str | None, dict[str, PersonaSnapshot]] = {}
        by_slug = {persona.slug: persona for persona in personas}
        for session in self._registry:
            chosen = by_salt.setdefault(session.cache_salt, {})
            if session.snapshot is not None and (used := by_slug.get(session.snapshot.slug)) is not None:
                chosen.setdefault(used.slug, used)
        for session in self._registry:
            chosen, allowed = by_salt[session.cache_salt], session.caller.personas
            for persona in personas:
                if len(chosen) < WARM_PERSONAS_PER_KEY and (allowed is None or persona.slug in allowed):
                    chosen.setdefault(persona.slug, persona)
        return [(salt, persona) for salt, chosen in by_salt.items() for persona in chosen.values()]

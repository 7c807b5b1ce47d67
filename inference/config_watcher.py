"""Applies what operators change, within a second, to every live connection of every process.

A change is announced on the channel layer after its commit. The announcement only says that something changed; versions
and keys are then read from the database. They are read every second anyway, so a lost message, a change made while
Redis was away, or a change by a command in another process takes effect as well. No token travels here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from channels.layers import get_channel_layer

from accounts.breaker import DependencyAway
from accounts.caller_lookup import CallerLookup
from accounts.callers import Caller
from accounts.database_threads import DatabaseThreads
from inference.engines.base import EngineDead, EngineRole
from inference.prefix_cache import prime
from inference.serving_context import ServingContext
from inference.session_registry import LiveSession, SessionRegistry
from personas.snapshot import Catalogue, PersonaSnapshot

logger = logging.getLogger("yap.config")

GROUP = "yap.config"
POLL_INTERVAL_S = 1.0
ANNOUNCE_LIMIT_S = 0.5
CATALOGUE_LIMIT_S = 10.0
KEEP_WARM_EVERY_S = 20.0
WARM_PERSONAS_PER_KEY = 8
WARM_BEFORE_S = 0.2
"""How long an edited persona waits for its prefix to be computed before it is used all the same (seconds)."""


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """Reads of the database, all synchronous. They run in a thread, never on the serving loop.

    Attributes:
        version: The number that grows with every change of a persona or a phrase list.
        catalogue: All personas and phrase lists.
        callers: Each of these callers as its key is now; None: the key was revoked, has expired or is gone.
    """

    version: Callable[[], int]
    catalogue: Callable[[], Catalogue]
    callers: Callable[[Collection[Caller]], Mapping[Caller, Caller | None]]


class ConfigWatcher:
    """Listens for changes and polls the database, one per process. It is also what asks a database that is away.

    Args:
        serving: Gets new catalogues.
        registry: Live sessions, which get changed limits or are closed.
        source: What to read.
        database: Where to read it; with one thread, so that reads follow one another.
        lookup: Remembered callers, to be kept up to date; None: there are none.
    """

    def __init__(
        self,
        serving: ServingContext,
        registry: SessionRegistry,
        source: ConfigSource,
        database: DatabaseThreads,
        lookup: CallerLookup | None = None,
    ) -> None:
        self._serving = serving
        self._registry = registry
        self._source = source
        self._database = database
        self._lookup = lookup
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._revoking: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trouble = ""
        self._loaded = False  # a catalogue is in force that this watcher has loaded

    async def start(self) -> None:
        """Load the catalogue, then listen and poll. On the serving loop; may be called again after it has failed.

        Raises:
            DependencyAway: The database does not answer.
        """
        self._loop = asyncio.get_running_loop()
        await self._refresh_catalogue()
        self._tasks = [
            asyncio.create_task(self._listen(), name="config listener"),
            asyncio.create_task(self._poll(), name="config poll"),
            asyncio.create_task(self._keep_warm(), name="keep personas warm"),
        ]

    async def aclose(self) -> None:
        """Stop listening and polling. Bounded in time."""
        tasks = [*self._tasks, *self._revoking]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def announce(self, topic: str, detail: str) -> None:
        """Tell every process that something changed. From any thread; never waits and never raises."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(self._look, topic)
        asyncio.run_coroutine_threadsafe(self._announce_elsewhere(topic, detail), loop)

    def _look(self, topic: str) -> None:
        if topic == "key" and self._lookup is not None:
            self._lookup.recheck()
        self._changed.set()

    async def _announce_elsewhere(self, topic: str, detail: str) -> None:
        layer = get_channel_layer()
        if layer is None:
            return
        try:
            async with asyncio.timeout(ANNOUNCE_LIMIT_S):
                await layer.group_send(GROUP, {"type": "changed", "topic": topic, "detail": detail})
        except Exception as error:  # whatever the layer's client raises: other processes poll within a second
            logger.debug("a change was not announced: %s", type(error).__name__)

    async def _listen(self) -> None:
        layer = get_channel_layer()
        while layer is not None:
            try:
                channel = await layer.new_channel(GROUP)
                await layer.group_add(GROUP, channel)
                self._look("key")  # an announcement may have been missed
                while True:
                    message: dict[str, Any] = await layer.receive(channel)
                    self._look(str(message.get("topic", "")))
            except Exception as error:  # Redis is away, which its breaker has logged; polling goes on
                logger.debug("announcements cannot be received: %s", type(error).__name__)
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
                self._trouble = ""
            except DependencyAway:  # the breaker has logged it; what is in force stays
                await asyncio.sleep(POLL_INTERVAL_S)
            except Exception as error:
                trouble = f"{type(error).__name__}: {error}"
                if trouble != self._trouble:  # once, not every second
                    logger.exception("changes cannot be read")
                self._trouble = trouble
                await asyncio.sleep(POLL_INTERVAL_S)

    async def _refresh_callers(self) -> None:
        """Read the keys of live sessions: close sessions of ended keys, apply changed limits and rights to the rest."""
        kept, lost = self._serving.kept, self._registry.resumable
        kept.expire()
        held = kept.callers().union(lost.callers(), (s.caller for s in self._registry))
        live = {caller for caller in held if caller.key_id is not None or caller.expires_at is not None}
        callers = live.union(self._lookup.unchecked() if self._lookup is not None else ())
        if not callers:
            return
        fresh = await self._database.read(lambda: self._source.callers(callers), probe=True)
        if self._lookup is not None:
            self._lookup.update(fresh)
        for ended in (each for each in held if fresh.get(each, each) is None):
            kept.revoke(ended)
            lost.revoke(ended)
        for session in self._registry:
            before = session.caller
            caller = fresh.get(before, before)
            if caller is None:
                self._revoke(session)
            elif caller != before:
                session.apply_caller(caller)
                if caller.limits.tokens_per_day is not None:
                    await self._serving.budget.open(caller)

    def _revoke(self, session: LiveSession) -> None:
        """Close a session in a task of its own: a client that takes no frames delays no other change."""
        task = asyncio.create_task(session.revoke(), name="revoke")
        self._revoking.add(task)
        task.add_done_callback(self._revoking.discard)

    async def _refresh_catalogue(self) -> None:
        resolver = self._serving.resolver
        if self._loaded:
            version = await self._database.read(self._source.version, probe=True)
            if version == resolver.catalogue.version:
                return
        live = [session.snapshot for session in self._registry if session.snapshot is not None]
        held = [*live, *self._serving.kept.snapshots(), *self._registry.resumable.snapshots()]
        compiled = await self._database.read(
            lambda: resolver.phrases.compile(self._source.catalogue(), held), limit_s=CATALOGUE_LIMIT_S, probe=True
        )
        classifier, stored = self._serving.classifier, compiled.catalogue.tool_head
        head = await self._database.read(lambda: classifier.prepare(stored), limit_s=CATALOGUE_LIMIT_S, probe=True)
        catalogue, before = compiled.catalogue, resolver.catalogue.personas
        changed = [persona for slug, persona in catalogue.personas.items() if persona != before.get(slug)]
        if self._loaded and changed:
            with suppress(TimeoutError):
                async with asyncio.timeout(WARM_BEFORE_S):
                    await self._warm(changed)
        resolver.phrases.install(compiled)
        classifier.install(stored, head)
        self._loaded = True
        if self._serving.policy.turn.tool.kind == "classifier" and not classifier.ready:
            logger.warning("TOOL_DECISION=classifier, but no classifier is in force: every tool decision is no")
        logger.info(
            "catalogue version=%d personas=%d phrases=%d",
            catalogue.version,
            len(catalogue.personas),
            len(catalogue.phrases),
        )

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

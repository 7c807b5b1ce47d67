"""A config watcher with one session and a database of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from django.db import OperationalError

from accounts.caller_lookup import CallerLookup
from accounts.callers import Caller
from accounts.database_threads import DatabaseThreads, database_breaker
from inference.config_watcher import ConfigSource, ConfigWatcher
from inference.session_registry import SessionRegistry
from personas.snapshot import Catalogue
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from tests.fakes.serving import UNLIMITED, Line, catalogue, talking

KEYED = replace(UNLIMITED, key_id=7, prefix="seven", fingerprint="f")


class Database:
    """What the control thread reads."""

    def __init__(self) -> None:
        self.catalogue = catalogue()
        self.callers: dict[int | None, Caller | None] = {7: KEYED}
        self.away = False
        self.breaker = database_breaker()
        self.reads = 0

    def source(self) -> ConfigSource:
        return ConfigSource(self._version, lambda: self.catalogue, self._now)

    def _version(self) -> int:
        self.reads += 1
        if self.away:
            raise OperationalError("no database")
        return self.catalogue.version

    def _now(self, callers: Collection[Caller]) -> dict[Caller, Caller | None]:
        return {caller: self.callers[caller.key_id] for caller in callers}

    def edit(self, found: Catalogue) -> None:
        self.catalogue = replace(found, version=self.catalogue.version + 1)


@asynccontextmanager
async def controlled(
    database: Database,
    chat: FakeEngine | None = None,
    caller: Caller = KEYED,
    lookup: CallerLookup | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Line, ConfigWatcher]]:
    async with talking(chat or FakeEngine(), caller=caller, **options) as line:
        registry = SessionRegistry(line.resumable)
        registry.add(line.session)
        threads = DatabaseThreads(database.breaker, 1, "control")
        control = ConfigWatcher(line.serving, registry, database.source(), threads, lookup)
        line.serving.started = False
        await control.start()
        line.serving.started = True
        try:
            yield line, control
        finally:
            await control.aclose()
            await threads.aclose()


async def until(so: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not so():  # noqa: ASYNC110 - other threads and timers decide
            await asyncio.sleep(0.002)


def prompts(engine: FakeEngine) -> list[str]:
    return [str(tiny_tokenizer().decode(list(request.prompt_ids))) for request in engine.requests]

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from django.db import OperationalError, ProgrammingError

from accounts.breaker import DependencyAway
from accounts.caller_lookup import CallerLookup
from accounts.callers import Caller
from accounts.database_threads import DatabaseThreads, database_breaker
from inference import config_watcher as config_watcher_module
from inference.config_watcher import GROUP, ConfigSource, ConfigWatcher
from inference.engines.base import PRIORITY_WARM
from inference.phrases.automaton import PhraseAutomaton
from inference.session_registry import SessionRegistry
from inference.turn_plan import TurnPolicy
from personas.snapshot import Catalogue, PhraseRule
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from tests.fakes.serving import ANNA, MAX, START, UNLIMITED, Line, catalogue, talking

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


@pytest.fixture(autouse=True)
def layer(monkeypatch: pytest.MonkeyPatch) -> InMemoryChannelLayer:
    """A channel layer of this test's own."""
    made = InMemoryChannelLayer()
    monkeypatch.setattr(config_watcher_module, "get_channel_layer", lambda: made)
    monkeypatch.setattr(config_watcher_module, "POLL_INTERVAL_S", 0.01)
    return made


@asynccontextmanager
async def controlled(
    database: Database,
    chat: FakeEngine | None = None,
    caller: Caller = KEYED,
    lookup: CallerLookup | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Line, ConfigWatcher]]:
    async with talking(chat or FakeEngine(), caller=caller, **options) as line:
        registry = SessionRegistry()
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


async def test_a_start_loads_what_there_is() -> None:
    database = Database()
    database.edit(catalogue(MAX, phrases=(PhraseRule("oh honey"),)))
    async with controlled(database) as (line, _):
        assert line.serving.resolver.catalogue is database.catalogue
        assert (await line.ask({**START, "persona": "anna"}))["error_code"] == "unknown_persona"


async def test_a_start_without_a_database_fails() -> None:
    database = Database()

    def broken() -> Catalogue:
        raise OperationalError("no database")

    async with talking() as line:
        line.serving.started = False
        threads = DatabaseThreads(database.breaker, 1, "control")
        source = replace(database.source(), catalogue=broken)
        control = ConfigWatcher(line.serving, SessionRegistry(), source, threads)
        for _ in range(2):
            with pytest.raises(DependencyAway):
                await control.start()
        await control.aclose()
        control = ConfigWatcher(line.serving, SessionRegistry(), database.source(), threads)
        await control.start()  # it has come back
        assert not database.breaker.away
        await control.aclose()
        await threads.aclose()


async def test_a_new_version_is_picked_up_by_looking() -> None:
    database, chat = Database(), FakeEngine()
    async with controlled(database, chat) as (line, _):
        await line.turn()
        database.edit(catalogue(replace(ANNA, chat_prompt="You are Anna the second."), MAX))
        await until(lambda: line.serving.resolver.catalogue is database.catalogue)
        await line.turn()
        assert "Anna the second" in prompts(chat)[-1]


async def test_an_edited_persona_is_warmed_before_it_is_used() -> None:
    database, chat = Database(), FakeEngine()
    async with controlled(database, chat) as (line, _):
        await until(lambda: len(chat.requests) >= 2)  # those that there are
        database.edit(catalogue(replace(ANNA, chat_prompt="You are Anna the second."), MAX))
        await until(lambda: line.serving.resolver.catalogue is database.catalogue)
        warmed = [
            request
            for request in chat.requests
            if "Anna the second" in tiny_tokenizer().decode(list(request.prompt_ids))
        ]
        assert [request.priority for request in warmed] == [PRIORITY_WARM]


async def test_an_engine_that_does_not_warm_holds_up_no_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_watcher_module, "WARM_BEFORE_S", 0.02)
    database, chat = Database(), FakeEngine()
    async with controlled(database, chat) as (line, _):
        chat.first = asyncio.Event()
        database.edit(catalogue(replace(ANNA, chat_prompt="You are Anna the second."), MAX))
        await until(lambda: line.serving.resolver.catalogue is database.catalogue)
        chat.first.set()
        await chat.wait_idle()


async def test_personas_are_kept_warm_while_nobody_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_watcher_module, "KEEP_WARM_EVERY_S", 0.01)
    database, chat = Database(), FakeEngine()
    long = replace(MAX, slug="long", chat_prompt="word " * 5000)
    database.edit(catalogue(ANNA, long, MAX))  # one that cannot be used does not stop the others
    async with controlled(database, chat) as (line, _):
        await until(lambda: len(chat.requests) >= 5)
        assert {ANNA.chat_prompt, MAX.chat_prompt} == {text.partition("\n")[2] for text in prompts(chat)}
        assert {request.priority for request in chat.requests} == {PRIORITY_WARM}
        chat.step = asyncio.Semaphore(0)
        await line.say(START)
        await until(lambda: any(request.priority != PRIORITY_WARM for request in chat.requests))
        count = len(chat.requests)
        reads = database.reads
        await until(lambda: database.reads > reads + 3)
        assert len(chat.requests) <= count + 1  # one may have been on its way


async def test_a_revoked_key_is_shown_the_door_at_once() -> None:
    database, chat = Database(), FakeEngine(step=asyncio.Semaphore(0))
    async with controlled(database, chat) as (line, _):
        await line.say(START)
        database.callers[7] = None
        await until(lambda: line.closed)
        assert line.closed == 1008
        assert [frame["type"] for frame in line.frames] == ["ack", "done", "error"]
        assert line.frames[-1]["error_code"] == "key_revoked"


async def test_changed_limits_govern_live_connections() -> None:
    database = Database()
    async with controlled(database) as (line, _):
        changed = replace(KEYED, own_chat_prompt=False, personas=frozenset({"max"}))
        database.callers[7] = changed
        await until(lambda: line.session.caller == changed)
        assert (await line.ask({**START, "chat_prompt": "You."}))["error_code"] == "invalid_chat_prompt"
        assert (await line.ask({**START, "persona": "anna"}))["error_code"] == "unknown_persona"


async def test_the_key_of_the_environment_is_asked_for_by_nobody() -> None:
    database = Database()
    async with controlled(database, caller=UNLIMITED) as (line, _):
        reads = database.reads
        await until(lambda: database.reads > reads + 2)
        assert line.closed is None


async def test_a_database_that_is_away_changes_nothing_and_is_asked_again() -> None:
    database = Database()
    async with controlled(database) as (line, _):
        before = line.serving.resolver.catalogue
        database.away = True
        reads = database.reads
        await until(lambda: database.reads > reads + 2)
        assert line.serving.resolver.catalogue is before
        assert (await line.turn())[-1]["type"] == "done"
        database.edit(catalogue(MAX))
        database.away = False
        await until(lambda: line.serving.resolver.catalogue is database.catalogue)


async def test_a_change_elsewhere_is_told_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, layer: InMemoryChannelLayer
) -> None:
    monkeypatch.setattr(config_watcher_module, "POLL_INTERVAL_S", 3600)
    database = Database()
    async with controlled(database) as (line, _):
        await until(lambda: GROUP in layer.groups)
        database.edit(catalogue(MAX))
        await layer.group_send(GROUP, {"type": "changed"})
        await until(lambda: line.serving.resolver.catalogue is database.catalogue)


async def test_a_change_here_reaches_this_process_and_the_others(
    monkeypatch: pytest.MonkeyPatch, layer: InMemoryChannelLayer
) -> None:
    monkeypatch.setattr(config_watcher_module, "POLL_INTERVAL_S", 3600)
    database = Database()
    async with controlled(database) as (line, control):
        other = await layer.new_channel()
        await layer.group_add(GROUP, other)
        database.edit(catalogue(MAX))
        await asyncio.to_thread(control.announce, "catalogue", "anna")  # the admin's thread
        async with asyncio.timeout(5):
            message = await layer.receive(other)
        assert (message["topic"], message["detail"]) == ("catalogue", "anna")
        await until(lambda: line.serving.resolver.catalogue is database.catalogue)


async def test_a_layer_that_fails_does_not_fail_the_change(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        async def new_channel(self, prefix: str) -> str:
            raise ConnectionError("no Redis")

        async def group_send(self, group: str, message: dict[str, Any]) -> None:
            raise ConnectionError("no Redis")

    monkeypatch.setattr(config_watcher_module, "get_channel_layer", Broken)
    database = Database()
    async with controlled(database) as (line, control):
        control.announce("key", "7")
        database.callers[7] = None
        await until(lambda: line.closed == 1008)


async def test_no_phrase_list_is_compiled_on_the_serving_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disabled persona lives on in its session, and the global list changes after that."""
    compiling: list[threading.Thread] = []
    build = PhraseAutomaton.build

    def counted(*rules: Any, **options: Any) -> PhraseAutomaton:
        compiling.append(threading.current_thread())
        return build(*rules, **options)

    database, chat = Database(), FakeEngine()
    database.edit(catalogue(replace(ANNA, phrases=(PhraseRule("my dear"),)), MAX))
    async with controlled(database, chat) as (line, _):
        await line.turn(persona="anna")
        monkeypatch.setattr(PhraseAutomaton, "build", counted)
        for edit in ("first", "second"):
            database.edit(catalogue(MAX, phrases=(PhraseRule(edit),)))
            await until(lambda: line.serving.resolver.catalogue is database.catalogue)
        chat.reply = "Hello second my dear friend."
        said = "".join(frame["text"] for frame in await line.turn() if frame["type"] == "token")
        assert "second" not in said
        assert said
        assert "my dear" not in said
    assert compiling
    assert threading.current_thread() not in compiling


async def test_a_turn_sees_one_version_of_the_catalogue() -> None:
    database, chat = Database(), FakeEngine()
    async with controlled(database, chat, turn=TurnPolicy()) as (line, _):
        await until(lambda: len(chat.requests) >= 2)
        await chat.wait_idle()
        chat.step = asyncio.Semaphore(1)
        await line.say(START)
        await line.until(lambda frames: len(frames) == 2)
        database.edit(catalogue(replace(ANNA, chat_prompt="Other."), MAX, phrases=(PhraseRule("you"),)))
        await until(lambda: line.serving.resolver.catalogue is database.catalogue)
        assert chat.step is not None
        for _ in range(100):
            chat.step.release()
        await line.until_done()
        assert line.text() == "Hello there, how are you today?"


async def test_announcing_before_and_after_its_life_is_nothing() -> None:
    async with talking() as line:
        threads = DatabaseThreads(database_breaker(), 1, "control")
        control = ConfigWatcher(line.serving, SessionRegistry(), Database().source(), threads)
        control.announce("key", "1")
        await control.aclose()


async def test_remembered_keys_follow_changes_although_they_are_not_connected() -> None:
    """What serves while the database is away must not be a key that was revoked while it answered."""
    database = Database()
    other = replace(UNLIMITED, key_id=8, prefix="eight", fingerprint="g")
    threads = DatabaseThreads(database.breaker, 1, "keys")
    lookup = CallerLookup(threads, lambda key, network: None, lambda key, network: other)
    assert await lookup.find("yap_eight") is other
    database.callers[8] = other
    async with controlled(database, lookup=lookup) as (_, control):
        database.callers[8] = None
        await asyncio.to_thread(control.announce, "key", "8")
        await until(lambda: not lookup._known)
    await threads.aclose()


async def test_an_error_of_the_database_is_logged_once_and_not_every_second(caplog: pytest.LogCaptureFixture) -> None:
    database = Database()
    async with controlled(database) as (line, control):
        real = database._version

        def broken() -> int:
            database.reads += 1
            raise ProgrammingError("no such column")

        object.__setattr__(control._source, "version", broken)
        reads = database.reads
        await until(lambda: database.reads > reads + 3)
        assert caplog.text.count("changes cannot be read") == 1
        object.__setattr__(control._source, "version", real)
        database.edit(catalogue(MAX))
        await until(lambda: line.serving.resolver.catalogue is database.catalogue)


async def test_a_client_that_takes_no_frames_delays_no_other_change() -> None:
    database = Database()
    async with controlled(database) as (line, _):
        never = asyncio.Event()

        async def stuck(text: str) -> None:
            await never.wait()

        line.session._send = stuck
        database.callers[7] = None
        database.edit(catalogue(MAX))
        await until(lambda: line.serving.resolver.catalogue is database.catalogue)
        never.set()

"""The config watcher beside a database, a channel layer and clients that fail or do not answer."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer
from django.db import ProgrammingError

from accounts.caller_lookup import CallerLookup
from accounts.database_threads import DatabaseThreads, database_breaker
from inference import config_watcher as config_watcher_module
from inference.config_watcher import GROUP, ConfigWatcher
from inference.phrases.automaton import PhraseAutomaton
from inference.session_registry import SessionRegistry
from inference.turn_plan import TurnPolicy
from personas.snapshot import PhraseRule
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import ANNA, MAX, START, UNLIMITED, catalogue, talking
from tests.fakes.watched_catalogue import Database, controlled, until


@pytest.fixture(autouse=True)
def layer(monkeypatch: pytest.MonkeyPatch) -> InMemoryChannelLayer:
    """A channel layer of this test's own."""
    made = InMemoryChannelLayer()
    monkeypatch.setattr(config_watcher_module, "get_channel_layer", lambda: made)
    monkeypatch.setattr(config_watcher_module, "POLL_INTERVAL_S", 0.01)
    return made


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


async def nowhere(key: str, network: str) -> None:
    """No key is known without the database."""


async def test_remembered_keys_follow_changes_although_they_are_not_connected() -> None:
    """What serves while the database is away must not be a key that was revoked while it answered."""
    database = Database()
    other = replace(UNLIMITED, key_id=8, prefix="eight", fingerprint="g")
    threads = DatabaseThreads(database.breaker, 1, "keys")
    lookup = CallerLookup(threads, nowhere, lambda key: other)
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

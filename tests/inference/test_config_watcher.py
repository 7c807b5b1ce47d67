from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from channels.layers import InMemoryChannelLayer
from django.db import OperationalError

from accounts.breaker import DependencyAway
from accounts.database_threads import DatabaseThreads
from inference import config_watcher as config_watcher_module
from inference.config_watcher import ConfigWatcher
from inference.engines.base import PRIORITY_WARM
from inference.kept_sessions import KeptSessions
from inference.resumable_sessions import ResumableSessions
from inference.session_registry import SessionRegistry
from personas.snapshot import Catalogue, PhraseRule
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from tests.fakes.serving import ANNA, MAX, START, UNLIMITED, catalogue, talking
from tests.fakes.watched_catalogue import KEYED, Database, controlled, prompts, until


@pytest.fixture(autouse=True)
def layer(monkeypatch: pytest.MonkeyPatch) -> InMemoryChannelLayer:
    """A channel layer of this test's own."""
    made = InMemoryChannelLayer()
    monkeypatch.setattr(config_watcher_module, "get_channel_layer", lambda: made)
    monkeypatch.setattr(config_watcher_module, "POLL_INTERVAL_S", 0.01)
    return made


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


async def test_a_catalogue_is_read_once_until_it_changes() -> None:
    database = Database()
    async with talking() as line:
        line.serving.started = False  # as it is until the first turns are prepared
        threads, loads = DatabaseThreads(database.breaker, 1, "control"), 0

        def counted() -> Catalogue:
            nonlocal loads
            loads += 1
            return database.catalogue

        source = replace(database.source(), catalogue=counted)
        control = ConfigWatcher(line.serving, SessionRegistry(), source, threads)
        await control.start()
        await until(lambda: database.reads > 2)
        await control.aclose()
        await threads.aclose()
    assert loads == 1


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


async def test_the_kept_sessions_of_a_revoked_key_are_dropped() -> None:
    database = Database()
    async with controlled(database) as (line, _):
        kept = line.serving.kept = KeptSessions(300.0)
        await line.turn()
        await line.session.aclose()
        reads = database.reads
        await until(lambda: database.reads > reads + 3)
        assert len(kept) == 1
        database.callers[7] = None
        await until(lambda: not len(kept))


async def test_the_lost_reply_of_a_revoked_key_is_dropped() -> None:
    database = Database()
    chat = FakeEngine(step=asyncio.Semaphore(2))
    async with controlled(database, chat, resumable=ResumableSessions(100.0)) as (line, _):
        kept, lost = line.serving.kept, line.resumable
        await line.say(START)
        await line.until(lambda frames: frames[-1]["type"] == "token")
        await line.session.aclose()
        assert lost.running == 1
        database.callers[7] = None
        await until(lambda: not len(lost))
        assert len(kept) == 0
        assert chat.aborted


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

"""The whole server in this process, over fake engines: the database, its threads, and what admins change."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections
from django.db.backends.utils import CursorWrapper

from accounts.models import ApiKey, Usage
from accounts.services import create_key, revoke_key
from inference.engines.base import EngineRole
from inference.engines.service import EngineService
from inference.engines.spec import EngineSpec
from personas.models import Persona
from personas.services import save_persona, set_personas_enabled
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from tests.fakes.socket import Socket, chat_application
from yapserver.env import Environment
from yapserver.runtime import COLLECTIONS, ServerRuntime
from yapserver.trial_tickets import mint

pytestmark = pytest.mark.django_db(transaction=True)

SAID = "Hello there, how are you today?"
START = {"type": "start", "session_id": "s", "chat_prompt": "You are Zoe.", "gender": "f", "personality": "calm"}
# The batched usage writer and the control listener: all that may ask the database while conversations run.
BACKGROUND = ("usage", "control")


class Served:
    """A runtime, its engines and the way in."""

    def __init__(self) -> None:
        self.chat = FakeEngine(reply=SAID)
        self.tool = FakeEngine(EngineRole.TOOL, lambda _: "[]")
        engines = {EngineRole.CHAT: self.chat, EngineRole.TOOL: self.tool}
        service = EngineService(
            [EngineSpec(role, "fake", 4096) for role in engines],
            lambda spec: engines[spec.role],
            startup_prompts=lambda engine: self.runtime.startup_prompts(engine),
        )
        env = Environment(TEXT_API_KEY="unused-here", RUN_DIR=settings.ENV.RUN_DIR, TOOL_HARD_TIMEOUT_MS=-1)
        self.runtime = ServerRuntime(env, service, "1.2.3")

    async def connect(self, key: str) -> Socket:
        runtime = self.runtime
        socket = Socket(chat_application(runtime.serving, runtime.admission, runtime.registry), f"api_key={key}")
        return await socket.connect()


@sync_to_async
def in_database(work: Callable[[], Any]) -> Any:
    try:
        return work()
    finally:
        connections.close_all()


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Served]:
    made = Served()
    await made.runtime.start()
    assert made.runtime.serving.ready
    yield made
    await made.runtime.aclose()


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(thread, statement) of everything the database is asked."""
    seen: list[tuple[str, str]] = []
    for name in ("execute", "executemany"):
        real = getattr(CursorWrapper, name)

        def spy(self: CursorWrapper, sql: str, *args: Any, _real: Any = real) -> Any:
            seen.append((threading.current_thread().name, sql))
            return _real(self, sql, *args)

        monkeypatch.setattr(CursorWrapper, name, spy)
    return seen


async def until(so: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not so():  # noqa: ASYNC110 - other threads decide
            await asyncio.sleep(0.005)


async def turn(socket: Socket, **fields: Any) -> list[dict[str, Any]]:
    before = sum(frame["type"] == "done" for frame in socket.frames)
    socket.say({**START, **fields})
    await socket.until(lambda: sum(frame["type"] == "done" for frame in socket.frames) > before)
    return socket.frames


async def test_nothing_is_asked_of_the_database_between_connect_and_close(
    served: Served, queries: list[tuple[str, str]]
) -> None:
    _, key = await in_database(lambda: create_key("one"))
    queries.clear()
    socket = await served.connect(key)
    socket.say({"type": "ping"})
    await socket.until_type("pong")
    assert queries, "a key is looked up at connect"
    queries.clear()
    for number in range(5):
        await turn(socket, user_utterance=f"question {number}")
    for message in (
        {"type": "chat_prompt", "gender": "male", "personality": "dry"},
        {"type": "warm_persona", "chat_prompt": "You are Max."},
        {"type": "warm_history", "history_text": "User: a\nAssistant: b"},
        {"type": "followup", "analysis_text": "a cat"},
        {"type": "dance"},
        {"type": "cancel"},
        {"type": "ping"},
    ):
        socket.say(message)
    await socket.until(lambda: [frame["type"] for frame in socket.frames].count("pong") == 2)
    assert [ask for ask in queries if not ask[0].startswith(BACKGROUND)] == []
    await socket.leave()
    assert [ask for ask in queries if not ask[0].startswith(BACKGROUND)] == []


async def test_a_revoked_key_closes_its_connections_within_a_second(served: Served) -> None:
    row, key = await in_database(lambda: create_key("one"))
    socket = await served.connect(key)
    await turn(socket)
    began = time.monotonic()
    await in_database(lambda: revoke_key(row))
    await socket.until(lambda: socket.closed is not None)
    assert time.monotonic() - began < 1.0
    assert socket.closed is not None
    assert socket.closed["code"] == 1008
    assert socket.frames[-1]["error_code"] == "key_revoked"
    await socket.leave()
    again = await served.connect(key)
    await again.ended()
    assert [frame["error_code"] for frame in again.frames] == ["authentication_failed"]


async def test_a_conversation_with_a_ticket_ends_with_its_operators_rights(served: Served) -> None:
    operator = await in_database(lambda: User.objects.create_superuser("operator"))
    socket = await served.connect(mint(operator.pk, "ada"))
    socket.say({"type": "ping"})
    await socket.until_type("pong")
    await in_database(lambda: User.objects.filter(pk=operator.pk).update(is_active=False))
    await socket.until(lambda: socket.closed is not None)
    assert socket.frames[-1]["error_code"] == "key_revoked"
    await socket.leave()


async def test_changed_limits_govern_the_next_message(served: Served) -> None:
    row, key = await in_database(lambda: create_key("one"))
    socket = await served.connect(key)
    await turn(socket)

    def forbid() -> None:
        ApiKey.objects.filter(pk=row.pk).update(allow_own_chat_prompt=False)

    await in_database(forbid)
    session = next(iter(served.runtime.registry))
    await until(lambda: not session.caller.own_chat_prompt)
    socket.say(START)
    assert (await socket.until_type("error"))["error_code"] == "invalid_chat_prompt"
    await socket.leave()


async def test_an_edited_persona_speaks_in_the_next_turn_of_a_live_session(served: Served) -> None:
    persona = Persona(slug="zoe", name="Zoe", gender="female", personality="odd", chat_prompt="You are Zoe the first.")
    _, key = await in_database(lambda: create_key("one"))
    await in_database(lambda: save_persona(persona))
    resolver = served.runtime.serving.resolver
    await until(lambda: resolver.catalogue.by_slug("zoe"))
    socket = await served.connect(key)
    fields = {"chat_prompt": None, "gender": None, "personality": None}
    await turn(socket, persona="zoe", **fields)
    began = time.monotonic()
    persona.chat_prompt = "You are Zoe the second."
    await in_database(lambda: save_persona(persona))
    await until(lambda: "second" in str(resolver.catalogue.by_slug("zoe")))
    assert time.monotonic() - began < 1.0
    await turn(socket, **fields)
    said = [str(tiny_tokenizer().decode(list(r.prompt_ids))) for r in served.chat.requests if r.max_tokens > 1]
    assert ["first" in text for text in said[-2:]] == [True, False]
    assert "Zoe the second" in said[-1]
    assert SAID in said[-1]
    await in_database(lambda: set_personas_enabled(Persona.objects.filter(slug="zoe"), False))
    await until(lambda: resolver.catalogue.by_slug("zoe") is None)
    await turn(socket, **fields)
    other = await served.connect(key)
    other.say({**START, "persona": "zoe", **fields})
    assert (await other.until_type("error"))["error_code"] == "unknown_persona"
    await asyncio.gather(socket.leave(), other.leave())


async def test_usage_is_written_when_the_house_closes() -> None:
    served = Served()
    await served.runtime.start()
    row, key = await in_database(lambda: create_key("one"))
    socket = await served.connect(key)
    frames = await turn(socket)
    usage = frames[-1]["usage"]
    await socket.leave()
    await served.runtime.aclose()
    rows = await in_database(lambda: list(Usage.objects.values()))
    assert [entry["turns"] for entry in rows] == [1]
    assert rows[0]["prompt_tokens"] == usage["prompt_tokens"]
    assert rows[0]["completion_tokens"] == usage["completion_tokens"]
    used = await in_database(lambda: ApiKey.objects.get(pk=row.pk).last_used_at)
    assert used is not None


async def test_the_engines_warm_what_conversations_begin_with(served: Served) -> None:
    texts = [str(tiny_tokenizer().decode(list(request.prompt_ids))) for request in served.tool.requests]
    assert any("take_screenshot" in text for text in texts)


async def test_a_house_whose_engines_do_not_come_up_stays_shut() -> None:
    def fail(spec: EngineSpec) -> Any:
        raise RuntimeError("no such model")

    service = EngineService([EngineSpec(EngineRole.CHAT, "fake", 4096)], fail)
    runtime = ServerRuntime(Environment(RUN_DIR=settings.ENV.RUN_DIR), service, "1.2.3")
    await runtime.start()
    assert not runtime.serving.ready
    assert runtime.status.readiness() == (False, "no such model")
    await runtime.aclose()


async def test_a_house_that_closes_lets_turns_end_and_stops_its_engines() -> None:
    served = Served()
    await served.runtime.start()
    _, key = await in_database(lambda: create_key("one"))
    served.chat.step = asyncio.Semaphore(1)
    socket = await served.connect(key)
    socket.say(START)
    await socket.until_type("token")
    draining = asyncio.create_task(served.runtime.drain(10))
    await asyncio.sleep(0)
    refused = await served.connect(key)
    await refused.ended()
    assert [frame["error_code"] for frame in refused.frames] == ["server_draining"]
    for _ in range(100):
        served.chat.step.release()
    await draining
    assert socket.frames[-2]["usage"]["finish_reason"] == "stop"
    assert socket.frames[-1] == {"type": "draining", "reconnect_in": 1}
    assert socket.closed == {"type": "websocket.close", "code": 1012}
    await socket.leave()
    await served.runtime.aclose()
    assert served.chat.stopped
    assert served.tool.stopped


async def test_what_pages_of_the_admin_leave_is_collected_young(served: Served) -> None:
    """A full collection stops every stream; the fuzzer (tests/security) measures the stalls."""
    assert gc.get_threshold() == COLLECTIONS
    assert gc.get_freeze_count() > 10_000

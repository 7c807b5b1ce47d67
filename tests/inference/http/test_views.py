from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application

from accounts import services
from accounts.connection_slots import MemoryConnectionSlots
from inference.engines.base import EngineRole
from inference.http.views import SCOPE_KEY, ServerStatus, model_name
from inference.serving_context import ServingContext
from inference.session_registry import SessionRegistry
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import START, UNLIMITED, Line, make_serving

TEXT_API_KEY: str = settings.ENV.text_api_key or ""
KEY = {"X-API-Key": TEXT_API_KEY}


@dataclass
class Server:
    serving: ServingContext
    facts: ServerStatus
    chat: FakeEngine
    client: httpx.AsyncClient


def client(facts: ServerStatus | None) -> httpx.AsyncClient:
    django = get_asgi_application()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await django({**scope, SCOPE_KEY: facts} if facts else scope, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://127.0.0.1")


@pytest.fixture(autouse=True)
def _views_alone(settings: Any) -> None:
    settings.MIDDLEWARE = []  # static files and sessions are nothing to them


@pytest_asyncio.fixture
async def server(_views_alone: None) -> AsyncIterator[Server]:
    chat = FakeEngine(model="some/chat")
    serving = await make_serving(chat, FakeEngine(EngineRole.TOOL))
    facts = ServerStatus(serving, SessionRegistry(), MemoryConnectionSlots(2), "1.2.3")
    async with client(facts) as made:
        yield Server(serving, facts, chat, made)
    await serving.engines.aclose()


async def test_health_is_asked_by_anyone(server: Server) -> None:
    for answer in (
        await server.client.get("/healthz"),
        await server.client.get("/healthz", headers={"X-API-Key": "x"}),
    ):
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    server.serving.draining = True
    assert (await server.client.get("/healthz")).status_code == 200


async def test_ready_when_every_engine_answers(server: Server) -> None:
    assert (await server.client.get("/readyz")).status_code == 200


async def unready(server: Server) -> dict[str, Any]:
    answer = await server.client.get("/readyz")
    assert answer.status_code == 503
    told: dict[str, Any] = answer.json()
    assert told["retry_in"] >= 1
    assert told["reason"]
    return told


async def test_not_ready_and_why(server: Server) -> None:
    server.serving.draining = True
    assert (await unready(server))["status"] == "draining"
    server.serving.draining, server.serving.started = False, False
    assert (await unready(server))["status"] == "starting"
    server.serving.started = True
    server.chat.die()
    async with asyncio.timeout(5):
        while server.serving.engines.ready:  # noqa: ASYNC110 - the service watches every half second
            await asyncio.sleep(0.01)
    assert "engine" in (await unready(server))["reason"]
    server.serving.engines.failure = "the chat engine could not be replaced: broken"
    told = await unready(server)
    assert (told["status"], told["reason"]) == ("dead", "the chat engine could not be replaced: broken")


async def test_a_tool_engine_that_is_replaced_is_named_and_turns_go_on(server: Server) -> None:
    tool = server.serving.engines.engine(EngineRole.TOOL)
    assert isinstance(tool, FakeEngine)
    tool.die()
    answer = await server.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "degraded": ["tool engine"]})


async def test_a_stranger_learns_that_it_is_not_ready_and_no_more(server: Server) -> None:
    server.serving.engines.failure = "the chat engine could not be replaced: /home/operator/models is broken"
    server.serving.started = False
    for headers in ({"Host": "evil.example"}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Forwarded-For": "::1", **KEY}):
        told = (await server.client.get("/readyz", headers=headers)).json()
        assert (told["status"], "/home" in told["reason"]) == ("dead", "X-API-Key" in headers)


@pytest.mark.django_db(transaction=True)
async def test_a_key_without_the_right_gets_half_the_status(server: Server) -> None:
    server.chat.model = "/home/operator/models/some-model"
    _, full = await sync_to_async(services.create_key)("customer")
    told = (await server.client.get("/status", headers={"X-API-Key": full})).json()
    assert "turns_running" not in told
    assert told["engines"] == {"chat": {"state": "ready"}, "tool": {"state": "ready"}}
    assert "/home" not in str(told)
    _, full = await sync_to_async(services.create_key)("monitoring", may_read_metrics=True)
    told = (await server.client.get("/status", headers={"X-API-Key": full})).json()
    assert "device" in told["engines"]["chat"] or "model" in told["engines"]["chat"]
    assert "turns_running" in told
    assert "/home" not in str(told)


def test_model_names_have_no_folders() -> None:
    assert model_name("/srv/models/some-model/") == "some-model"
    assert model_name("./models/x") == "x"
    assert model_name("owner/model") == "owner/model"


@pytest.mark.parametrize(
    "options",
    [
        {"headers": KEY},
        {"headers": {"Authorization": f"Bearer {TEXT_API_KEY}"}},
        {"params": {"api_key": TEXT_API_KEY}},
    ],
)
async def test_status_with_a_key(server: Server, options: dict[str, Any]) -> None:
    server.chat.step = asyncio.Semaphore(0)
    line = Line(server.serving)
    server.facts.registry.add(line.session)
    await line.say(START)
    slot = await server.facts.slots.acquire(UNLIMITED, 0.0)
    assert slot is not None
    told = (await server.client.get("/status", **options)).json()
    assert told["status"] == "running"
    assert told["connections"] == {"active": 1, "max": 2, "available": 1, "at_capacity": False}
    assert (told["healthy"], told["turns_running"], told["version"]) == (True, 1, "1.2.3")
    assert set(told["engines"]) == set(told["models"]) == {"chat", "tool"}
    assert told["engines"]["chat"]["state"] == "ready"
    server.serving.draining = True
    assert (await server.client.get("/status", **options)).json()["healthy"] is False
    await line.session.aclose()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"headers": {"X-API-Key": "wrong"}},
        {"params": {"api_key": "wrong"}},
        {"headers": KEY, "params": {"api_key": "another"}},
    ],
)
async def test_status_without_a_good_key(server: Server, options: dict[str, Any]) -> None:
    answer = await server.client.get("/status", **options)
    assert answer.status_code == 401
    assert set(answer.json()) == {"detail"}


async def test_a_process_without_engines() -> None:
    async with client(None) as made:
        assert (await made.get("/healthz")).status_code == 200
        assert (await made.get("/readyz")).status_code == 503
        assert (await made.get("/status", headers=KEY)).status_code == 503

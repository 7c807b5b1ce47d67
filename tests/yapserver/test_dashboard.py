from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import pytest
from django.contrib.auth.models import Permission, User
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from accounts import services
from accounts.breaker import DependencyAway
from accounts.callers import Caller
from accounts.connection_slots import MemoryConnectionSlots
from accounts.models import Usage
from inference.engines.base import EngineRole, EngineState
from inference.engines.status import EngineStatus
from inference.http.views import SCOPE_KEY, ServerStatus
from inference.process_report import ProcessReport, encode
from inference.serving_context import ServingContext
from inference.session_registry import SessionRegistry
from personas.models import Persona
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import UNLIMITED, make_serving
from yapserver import dashboard_usage
from yapserver.dashboard import live

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh(settings: Settings) -> None:
    dashboard_usage.forget()
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.startswith("whitenoise.")]


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("operator"))
    return client


def staff(*rights: str) -> User:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    return user


def use(prefix: str, persona: str = "", minutes: float = 1, **counts: Any) -> None:
    bucket = (timezone.now() - timedelta(minutes=minutes)).replace(second=0, microsecond=0)
    Usage.objects.create(period="minute", bucket=bucket, key_prefix=prefix, persona=persona, **counts)


def page(client: Client) -> str:
    response = client.get(reverse("admin:index"))
    assert response.status_code == 200
    return response.content.decode()


def refreshed(client: Client) -> dict[str, Any]:
    response = client.get(reverse("dashboard-live"))
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    answer: dict[str, Any] = response.json()
    return answer


# -- the past ----------------------------------------------------------------------------------------------------------


def test_the_last_hour_and_day_in_charts(operator: Client) -> None:
    use("env", "ada", 2, turns=4, completion_tokens=120, cancels=1, errors={"generation_timeout": 2}, ttft=[0, 0, 4])
    use("env", "ada", 60 * 5, turns=6, completion_tokens=3600)
    charts = refreshed(operator)["charts"]
    hour, day = charts["hour"], charts["day"]
    assert (len(hour["turns"]["labels"]), len(day["turns"]["labels"])) == (60, 24)
    assert sum(hour["turns"]["datasets"][0]["data"]) == 4
    assert sum(day["turns"]["datasets"][0]["data"]) == 10
    assert max(hour["tokens"]["datasets"][0]["data"]) == 2.0
    assert max(day["tokens"]["datasets"][0]["data"]) == 1.0
    cancels, errors = (each["data"] for each in hour["trouble"]["datasets"])
    assert (sum(cancels), sum(errors)) == (1, 2)
    p50, p95 = (each["data"] for each in hour["ttft"]["datasets"])
    assert [each for each in p50 if each is not None] == [12.5]
    assert [each for each in p95 if each is not None] == [14.75]


def test_the_page_begins_with_the_same_numbers(operator: Client) -> None:
    use("env", "", 2, turns=4, cancels=3, errors={"generation_timeout": 2})
    html = page(operator)
    tiles = dict(re.findall(r'data-tile="(\w+)".*?<span data-value>([^<]*)<', html, re.DOTALL))
    assert (tiles["cancels"], tiles["errors"]) == ("3", "2")
    assert sorted(re.findall(r'data-chart="(\w+)"', html)) == ["tokens", "trouble", "ttft", "turns"]
    embedded = re.search(r'<script id="charts" type="application/json">(.*?)</script>', html)
    assert embedded
    assert json.loads(embedded[1]) == refreshed(operator)["charts"]


def test_keys_and_personas_by_use(operator: Client) -> None:
    row, _ = services.create_key("A <b>customer</b>")
    Persona.objects.create(slug="ada", name="Ada", gender="female", personality="dry", chat_prompt="You are Ada.")
    use(row.prefix, "ada", 3, turns=5)
    use("env", "", 3, turns=9)
    use("try", "gone", 3, turns=1)
    html = refreshed(operator)["now"]
    for name in ("keys", "personas"):
        assert f'data-ranking="{name}"' in html
    assert reverse("admin:accounts_apikey_change", args=[row.pk]) in html
    assert "A &lt;b&gt;customer&lt;/b&gt;" in html
    assert html.index("TEXT_API_KEY") < html.index("A &lt;b&gt;") < html.index("Try it")
    assert "the client&#x27;s own prompt" in html
    assert "gone" in html


# -- first steps -------------------------------------------------------------------------------------------------------


def test_an_empty_server_says_what_to_do_first(operator: Client) -> None:
    Persona.objects.all().delete()
    html = page(operator)
    assert reverse("admin:accounts_apikey_add") in html
    assert 'id="first-steps"' in html
    assert "Make a key" in html
    assert "Write a persona" in html
    services.create_key("customer")
    persona = Persona.objects.create(
        slug="ada", name="Ada", gender="female", personality="dry", chat_prompt="You are Ada."
    )
    html = page(operator)
    assert "Make a key" not in html
    assert reverse("admin:personas_persona_try", args=[persona.pk]) in html
    use("try", turns=1)
    assert 'id="first-steps"' not in page(operator)


# -- rights ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rights", [("view_persona", "change_persona", "add_persona"), ("view_persona", "view_usage")])
def test_staff_without_the_right_to_keys_sees_none(client: Client, rights: tuple[str, ...]) -> None:
    row, full = services.create_key("Customer with a name")
    use(row.prefix, "", 3, turns=5)
    client.force_login(staff(*rights))
    for text in (page(client), json.dumps(refreshed(client))):
        assert row.name not in text
        assert row.prefix not in text
        assert row.hash not in text
        assert full not in text
        assert "keys" not in re.findall(r'data-ranking=\\?"(\w+)', text)
        assert "apikey" not in text


def test_staff_without_the_right_to_usage_sees_none(client: Client) -> None:
    use("env", "", 3, turns=5)
    client.force_login(staff("view_persona", "view_apikey"))
    html = page(client)
    assert "data-chart" not in html
    assert "data-ranking" not in html
    assert refreshed(client)["charts"] is None


def test_strangers_see_nothing(client: Client) -> None:
    for name in ("dashboard-live", "admin:index"):
        assert client.get(reverse(name)).status_code == 302
    client.force_login(User.objects.create_user("customer"))
    assert client.get(reverse("dashboard-live")).status_code == 302


# -- now ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def serving() -> Iterator[ServingContext]:
    made = asyncio.run(make_serving(FakeEngine(), None))
    yield made
    asyncio.run(made.engines.aclose())


def asked(facts: ServerStatus) -> dict[str, Any]:
    request: HttpRequest = RequestFactory().get(reverse("dashboard-live"))
    request.user = staff()
    request.scope = {SCOPE_KEY: facts}  # type: ignore[attr-defined]  # as an ASGI server gives it
    answer: dict[str, Any] = json.loads(live(request).content)
    return answer


def test_connections_turns_and_engines_as_they_are_now(serving: ServingContext) -> None:
    slots = MemoryConnectionSlots(8)

    async def connect() -> None:
        for _ in range(3):
            assert await slots.acquire(UNLIMITED, 0)

    asyncio.run(connect())
    html = asked(ServerStatus(serving, SessionRegistry(), slots, "1"))["now"]
    tiles = dict(re.findall(r'data-tile="(\w+)".*?<span data-value>([^<]*)<', html, re.DOTALL))
    assert tiles["connections"] == "3"
    assert "of 8" in html
    assert tiles["turns"] == "0"
    assert 'data-engine="chat"' in html
    assert ">fake<" in html
    assert re.search(r">\s*ready\s*<", html)
    assert "KV in use" in html
    assert "Prefix hit rate" in html
    assert 'data-engine="tool"' not in html


class Reports:
    """What other processes have written to Redis; None: Redis does not answer."""

    def __init__(self, *others: bytes) -> None:
        self._others: list[bytes] | None = list(others)

    def away(self) -> None:
        self._others = None

    async def others(self) -> list[bytes]:
        if self._others is None:
            raise DependencyAway("redis")
        return self._others


def elsewhere(pid: int, state: str = "ready", model: str = "fake", **fields: Any) -> bytes:
    engine = EngineStatus(
        EngineRole.CHAT, model, EngineState.READY if state != "starting" else EngineState.STARTING, "", 0.0, 4096, 0,
        {"device": "cuda"}, {"running": 5, "waiting": 2, "kv_usage": 0.5, "prefix_hit_rate": 0.5, "generated": 900},
    )  # fmt: skip
    return encode(ProcessReport("other-host", pid, "1.0.9", state, engines={"chat": engine}, at=7.0, **fields))


def shared(serving: ServingContext, *others: bytes) -> ServerStatus:
    reports: Any = Reports(*others)
    return ServerStatus(serving, SessionRegistry(), MemoryConnectionSlots(8), "1.1.0", reports=reports)


def test_all_processes_are_listed_and_added_up(serving: ServingContext) -> None:
    facts = shared(
        serving,
        elsewhere(41, connections=6, turns_running=5),
        elsewhere(42, "draining", connections=1, turns_running=1),
        elsewhere(43, "starting", "another"),
        b"not a report",
    )
    answer = asked(facts)
    html = answer["now"]
    assert re.findall(r'data-process="(\d+)"', html) == [str(facts.report().pid), "41", "42", "43"]
    tiles = dict(re.findall(r'data-tile="(\w+)".*?<span data-value>([^<]*)<', html, re.DOTALL))
    assert tiles["turns"] == "6"
    for text in ("other-host, process 41", "1.0.9", "6 connections, 5 turns running", "1 connection, 1 turn running"):
        assert text in html
    assert re.search(r"process 42.*?>\s*draining\s*<", html, re.DOTALL)
    assert html.count("shows this page") == 1
    # One card for the three processes with one model, another for the other one.
    assert html.count('data-engine="chat"') == 2
    assert "ready in 3 of 3 processes" in html
    assert re.search(r"10 running, 4 waiting", html)
    assert [each for each in answer["counters"] if each.startswith("other-host/")] == [
        f"other-host/{pid}/0.000" for pid in (41, 42, 43)
    ]
    assert answer["counters"]["other-host/41/0.000"] == [900, 7.0]


def test_without_redis_the_page_shows_this_process_as_ever(serving: ServingContext) -> None:
    html = asked(ServerStatus(serving, SessionRegistry(), MemoryConnectionSlots(8), "1"))["now"]
    assert "Processes" not in html
    assert "data-process" not in html


def test_while_redis_does_not_answer_the_page_says_so(serving: ServingContext) -> None:
    facts = shared(serving, elsewhere(41))
    facts.degraded = lambda: ["redis"]
    cast(Any, facts.reports).away()
    html = asked(facts)["now"]
    assert "Redis does not answer" in html
    assert re.findall(r'data-process="(\d+)"', html) == [str(facts.report().pid)]


def test_a_server_that_is_not_ready_says_why(serving: ServingContext) -> None:
    serving.draining = True
    html = asked(ServerStatus(serving, SessionRegistry(), MemoryConnectionSlots(8), "1"))["now"]
    assert re.search(r'role="status">\s*Draining\s*<', html)


def test_places_that_cannot_be_counted_do_not_take_the_page_down(serving: ServingContext) -> None:
    class Away(MemoryConnectionSlots):
        async def snapshot(self, caller: Caller | None = None) -> Any:
            raise ConnectionError("no Redis")

    html = asked(ServerStatus(serving, SessionRegistry(), Away(8), "1"))["now"]
    assert 'data-tile="connections"' in html


def test_a_process_without_engines_says_how_to_start_one(operator: Client) -> None:
    assert "scripts/main.sh" in page(operator)

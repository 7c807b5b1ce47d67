from __future__ import annotations

from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from accounts import services
from accounts.connection_slots import MemoryConnectionSlots
from inference.engines.base import EngineRole
from inference.http.metrics_view import Merged, metrics
from inference.http.views import SCOPE_KEY, ServerStatus
from inference.session_registry import SessionRegistry
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import make_serving

KEY = "hV7tq2mLr9wZc4nBd8fK"  # of tests.settings


def registry(tokens: int) -> CollectorRegistry:
    """As an engine fills one: names and labels are the same in each."""
    made = CollectorRegistry()
    Counter("vllm:tokens", "Tokens", ["engine"], registry=made).labels("0").inc(tokens)
    Histogram("vllm:seconds", "Seconds", buckets=(1, 2), registry=made).observe(tokens)
    return made


def test_two_engines_become_one_set_of_families() -> None:
    text = generate_latest(Merged(registry(0), {"chat": registry(3), "tool": registry(5)})).decode()
    assert text.count("# TYPE vllm:tokens_total counter") == 2  # the server's own, and the engines' together
    engines = generate_latest(Merged(CollectorRegistry(), {"chat": registry(3), "tool": registry(5)})).decode()
    families = {family.name: family for family in text_string_to_metric_families(engines)}
    tokens = {
        sample.labels["role"]: (sample.labels["engine"], sample.value)
        for sample in families["vllm:tokens"].samples
        if sample.name == "vllm:tokens_total"
    }
    assert tokens == {"chat": ("0", 3.0), "tool": ("0", 5.0)}
    assert engines.count("# TYPE vllm:seconds histogram") == 1
    assert 'vllm:seconds_bucket{le="+Inf",role="tool"} 1.0' in engines


@pytest.fixture
async def facts() -> AsyncIterator[ServerStatus]:
    chat = FakeEngine()
    chat.registry = registry(7)
    serving = await make_serving(chat, FakeEngine(EngineRole.TOOL))
    serving.metrics.refused("invalid_message")
    yield ServerStatus(serving, SessionRegistry(), MemoryConnectionSlots(8), "1")
    await serving.engines.aclose()


async def ask(facts: ServerStatus | None, address: str = "127.0.0.1", **headers: str) -> Any:
    headers = {"Host": "localhost:8000", **headers}
    own = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "headers": own}
    scope["client"] = [address, 4000]
    request = ASGIRequest(scope | ({SCOPE_KEY: facts} if facts else {}), BytesIO())
    return await sync_to_async(metrics)(request)


async def test_loopback_needs_no_key(facts: ServerStatus) -> None:
    for address in ("127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1"):
        answer = await ask(facts, address)
        assert answer.status_code == 200
        assert answer["Content-Type"].startswith("text/plain")
        text = answer.content.decode()
        assert 'yap_refused_messages_total{code="invalid_message"} 1.0' in text
        assert 'vllm:tokens_total{engine="0",role="chat"} 7.0' in text
        for name in ("yap_cancel_seconds", "yap_held_deltas", "yap_suppressed_phrases", "yap_frame_send_seconds"):
            assert name in text


@pytest.mark.parametrize(
    "headers",
    [{"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"X-Real-IP": "::1"}, {"Via": "1.1 proxy"}],
)
async def test_a_proxy_on_this_machine_is_not_this_machine(facts: ServerStatus, headers: dict[str, str]) -> None:
    assert (await ask(facts, **headers)).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:8000"])
async def test_a_name_that_was_rebound_to_this_machine_is_a_stranger(facts: ServerStatus, host: str) -> None:
    assert (await ask(facts, Host=host)).status_code == 401


async def test_loopback_names_in_any_form(facts: ServerStatus) -> None:
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000"):
        assert (await ask(facts, Host=host)).status_code == 200


@pytest.mark.django_db(transaction=True)
async def test_a_key_needs_the_right_to_read_metrics(facts: ServerStatus) -> None:
    for right, code in ((False, 403), (True, 200)):
        _, full = await sync_to_async(services.create_key)("scraper", may_read_metrics=right)
        assert (await ask(facts, "192.0.2.7", **{"X-API-Key": full})).status_code == code


async def test_others_need_a_key(facts: ServerStatus, settings: Settings) -> None:
    answer = await ask(facts, "192.0.2.7")
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert (await ask(facts, "192.0.2.7", **{"X-Forwarded-For": "127.0.0.1"})).status_code == 401
    assert (await ask(facts, "192.0.2.7", **{"X-API-Key": KEY})).status_code == 200
    settings.ENV = settings.ENV.model_copy(update={"METRICS_PUBLIC_LOOPBACK": False})
    assert (await ask(facts)).status_code == 401
    assert (await ask(facts, Authorization=f"Bearer {KEY}")).status_code == 200


async def test_a_process_without_engines_says_so() -> None:
    assert (await ask(None)).status_code == 503

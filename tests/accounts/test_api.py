from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts import services
from accounts.models import ApiKey, Usage
from accounts.usage import COUNTERS

pytestmark = pytest.mark.django_db


@pytest.fixture
def key() -> tuple[ApiKey, str]:
    return services.create_key("customer")


def use(prefix: str, minutes: float, **counts: Any) -> None:
    bucket = (timezone.now() - timedelta(minutes=minutes)).replace(second=0, microsecond=0)
    Usage.objects.create(period="minute", bucket=bucket, key_prefix=prefix, **counts)


def ask(client: Client, key: str | None, **query: str) -> Any:
    return client.get("/api/v1/usage/", query, headers={} if key is None else {"X-API-Key": key})


def test_a_key_sees_its_own_usage_and_no_other(client: Client, key: tuple[ApiKey, str]) -> None:
    row, full = key
    use(row.prefix, 2, turns=3, completion_tokens=40, errors={"generation_timeout": 1}, ttft=[0, 0, 3])
    use("zzzzzzzz", 2, turns=100)
    answer = ask(client, full)
    assert answer.status_code == 200
    told = answer.json()
    assert (told["key"], told["period"], told["step"]) == (row.prefix, "day", "hour")
    assert (told["total"]["turns"], told["total"]["completion_tokens"]) == (3, 40)
    assert told["total"]["errors"] == {"generation_timeout": 1}
    assert 10 <= told["total"]["ttft_p50_ms"] <= 15
    assert set(COUNTERS) < set(told["steps"][0])
    assert told["steps"][0]["ttft_p50_ms"] is None
    assert full not in answer.content.decode()


@pytest.mark.parametrize(
    ("period", "step", "points", "counted"),
    [("hour", "minute", 60, 1), ("day", "hour", 24, 3), ("month", "day", 30, 7)],
)
def test_a_period_is_whole_and_in_its_steps(
    client: Client, key: tuple[ApiKey, str], period: str, step: str, points: int, counted: int
) -> None:
    row, full = key
    for minutes, turns in ((5, 1), (60 * 20, 2), (60 * 24 * 20, 4), (60 * 24 * 40, 8)):
        use(row.prefix, minutes, turns=turns)
    told = ask(client, full, period=period).json()
    assert (told["step"], len(told["steps"])) == (step, points)
    assert told["total"]["turns"] == sum(each["turns"] for each in told["steps"]) == counted
    assert told["start"] == told["steps"][0]["start"]


def test_a_wrong_period_is_told(client: Client, key: tuple[ApiKey, str]) -> None:
    answer = ask(client, key[1], period="century")
    assert answer.status_code == 400
    assert "period" in answer.json()


def test_without_a_good_key_nothing(client: Client, key: tuple[ApiKey, str]) -> None:
    services.revoke_key(key[0])
    for bad in (None, "nonsense", key[1]):
        assert ask(client, bad).status_code == 401

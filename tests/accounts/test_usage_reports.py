from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from accounts.usage import TurnUsage, UsageKey, UsageSum
from accounts.usage_reports import last_day, last_hour, ranking, series
from accounts.usage_services import record_usage, roll_up

NOW = datetime(2027, 1, 15, 12, 30, 20, tzinfo=UTC)


@pytest.fixture
def _used(either_database: str) -> None:
    rows = [(0, "aaaaaaaa", "ada", 2), (0, "bbbbbbbb", "", 5), (1, "aaaaaaaa", "bob", 1), (59, "aaaaaaaa", "ada", 4),
            (60, "aaaaaaaa", "ada", 8), (60 * 23, "aaaaaaaa", "ada", 16), (60 * 30, "aaaaaaaa", "ada", 32)]  # fmt: skip
    batch: dict[UsageKey, UsageSum] = {}
    for minutes, prefix, persona, turns in rows:
        minute = int((NOW - timedelta(minutes=minutes)).timestamp()) // 60 * 60
        sums = batch.setdefault(UsageKey(minute, prefix, persona), UsageSum())
        for _ in range(turns):
            sums.add_turn(TurnUsage(1, prefix, persona, ttft_ms=float(minutes + 1), error_code="e"))
    record_usage(batch, {})


def turns(points: list[float]) -> list[float]:
    return [each for each in points if each]


@pytest.mark.usefixtures("_used")
def test_the_last_hour_by_minutes_without_gaps() -> None:
    points = last_hour(NOW)
    assert len(points) == 60
    assert points[-1].start == NOW.replace(second=0)
    counted = {index: point.sums.counts["turns"] for index, point in enumerate(points) if point.sums.counts["turns"]}
    assert counted == {0: 4, 58: 1, 59: 7}
    assert points[59].sums.errors == {"e": 7}
    assert points[30].ttft_p50_ms is None


@pytest.mark.usefixtures("_used")
def test_the_last_day_by_hours_is_the_same_before_and_after_rolling_up() -> None:
    def shown() -> list[tuple[datetime | None, int, float | None]]:
        return [(point.start, point.sums.counts["turns"], point.ttft_p95_ms) for point in last_day(NOW)]

    before = shown()
    assert {start.hour: count for start, count, _ in before if count and start} == {12: 8, 11: 12, 13: 16}
    roll_up(NOW, keep_minutes=timedelta(hours=1))
    assert shown() == before


@pytest.mark.usefixtures("_used")
def test_one_key_days_rankings_and_totals() -> None:
    assert sum(point.sums.counts["turns"] for point in last_hour(NOW, "bbbbbbbb")) == 5
    assert [point.sums.counts["turns"] for point in series(NOW, "day", 2)] == [48, 20]
    hour, day = NOW - timedelta(hours=1), NOW - timedelta(days=1)
    by_key = ranking("key_prefix", hour)
    assert [(point.name, point.sums.counts["turns"]) for point in by_key] == [("aaaaaaaa", 7), ("bbbbbbbb", 5)]
    by_persona = ranking("persona", day)
    assert sum(point.sums.counts["turns"] for point in by_persona) == 36
    assert by_persona[0].name == "ada"
    assert all(point.ttft_p50_ms is not None for point in by_persona)


def test_an_empty_server_has_empty_charts(db: None) -> None:
    assert len(last_day(NOW)) == 24
    assert ranking("persona", NOW) == []
    assert last_day(NOW)[0].ttft_p95_ms is None

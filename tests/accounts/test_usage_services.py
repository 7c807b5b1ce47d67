from __future__ import annotations

import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from accounts import services, usage_services
from accounts.models import ApiKey, Usage
from accounts.selectors import tokens_today
from accounts.usage import COUNTERS, TurnUsage, UsageBatch, UsageKey, UsageSum
from accounts.usage_services import record_usage, roll_up, sum_of, write_batch

NOW = datetime(2027, 1, 15, 12, 30, tzinfo=UTC)


def sums(turns: int = 1, ttft_ms: float = 30.0, error: str | None = None) -> UsageSum:
    result = UsageSum()
    for _ in range(turns):
        result.add_turn(
            TurnUsage(
                1, "x", "x", prompt_tokens=10, cached_tokens=8, completion_tokens=5, ttft_ms=ttft_ms, error_code=error
            )
        )
    return result


def at(when: datetime, prefix: str = "aaaaaaaa", persona: str = "ada") -> UsageKey:
    return UsageKey(int(when.timestamp()), prefix, persona)


def everything() -> UsageSum:
    result = UsageSum()
    for row in Usage.objects.all():
        result.add(sum_of(row))
    return result


@pytest.mark.usefixtures("either_database")
def test_batches_add_up_in_one_row() -> None:
    record_usage({at(NOW): sums(2, error="internal_error")}, {})
    record_usage({at(NOW): sums(3, 300.0, "generation_timeout"), at(NOW, persona=""): sums()}, {})
    row = Usage.objects.get(persona="ada")
    assert (row.turns, row.prompt_tokens, row.cached_tokens, row.completion_tokens) == (5, 50, 40, 25)
    assert row.errors == {"internal_error": 2, "generation_timeout": 3}
    assert sum(row.ttft) == 5
    assert (row.period, row.bucket) == ("minute", NOW)
    assert Usage.objects.count() == 2


@pytest.mark.usefixtures("either_database")
def test_last_used_only_moves_forward() -> None:
    row, _ = services.create_key("customer")
    record_usage({}, {row.pk: NOW.timestamp(), row.pk + 1: NOW.timestamp()})
    record_usage({}, {row.pk: NOW.timestamp() - 60})
    assert ApiKey.objects.get().last_used_at == NOW


@pytest.mark.usefixtures("either_database")
def test_all_or_nothing() -> None:
    with pytest.raises(Exception, match=r"usage_has_key|CHECK constraint"):
        record_usage({at(NOW): sums(), at(NOW, prefix=""): sums()}, {})
    assert not Usage.objects.exists()


@pytest.mark.usefixtures("either_database")
def test_rolling_up_moves_and_keeps_every_count() -> None:
    ages = [0, 30, 59, 60, 61, 60 * 47, 60 * 49, 60 * 24 * 20, 60 * 24 * 32, 60 * 24 * 32 + 90]
    record_usage({at(NOW - timedelta(minutes=age)): sums(age % 7 + 1, error="e") for age in ages}, {})
    before = everything()
    roll_up(NOW)
    assert Counter(Usage.objects.values_list("period", flat=True)) == {"minute": 6, "hour": 2, "day": 1}
    assert everything() == before
    assert roll_up(NOW) == {"minute": 0, "hour": 0, "day": 0}
    assert everything() == before

    late = NOW - timedelta(days=32)  # written late, when its day was rolled up long ago
    record_usage({at(late): sums()}, {})
    roll_up(NOW)
    assert Usage.objects.filter(period="day").count() == 1
    assert everything().counts["turns"] == before.counts["turns"] + 1


@pytest.mark.usefixtures("either_database")
def test_the_oldest_days_go() -> None:
    record_usage({at(NOW - timedelta(days=500)): sums(), at(NOW): sums()}, {})
    assert roll_up(NOW)["day"] == 1
    assert Usage.objects.get().bucket == NOW


@pytest.mark.usefixtures("either_database")
def test_more_rows_than_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_services, "_CHUNK", 50)
    start = NOW - timedelta(days=3)
    record_usage({at(start + timedelta(minutes=minute)): sums() for minute in range(60)}, {})
    roll_up(NOW)
    assert set(Usage.objects.values_list("period", flat=True)) == {"hour"}
    assert everything().counts["turns"] == 60


@pytest.mark.parametrize(
    "kept",
    [(timedelta(minutes=30),), (timedelta(hours=1), timedelta(hours=2)), (timedelta(1), timedelta(9), timedelta(8))],
)
def test_what_the_dashboard_shows_cannot_be_rolled_away(kept: tuple[timedelta, ...]) -> None:
    with pytest.raises(ValueError, match="keep at least"):
        roll_up(NOW, *kept)


@pytest.mark.usefixtures("either_database")
def test_tokens_today_starts_at_midnight_utc_and_survives_rolling_up() -> None:
    midnight = NOW.replace(hour=0, minute=0)
    record_usage({at(midnight): sums(2), at(midnight - timedelta(minutes=1)): sums(7), at(NOW): sums(1)}, {})
    record_usage({at(NOW, "bbbbbbbb"): sums(9)}, {})
    assert tokens_today("aaaaaaaa", NOW.timestamp()) == 3 * 15
    roll_up(NOW, keep_minutes=timedelta(hours=1))
    assert tokens_today("aaaaaaaa", NOW.timestamp()) == 3 * 15
    assert tokens_today("cccccccc", NOW.timestamp()) == 0


@pytest.mark.usefixtures("postgres")
def test_processes_that_write_the_same_rows_at_once_lose_nothing() -> None:
    minutes = [NOW - timedelta(hours=2) + timedelta(minutes=minute) for minute in range(6)]

    def write(worker: int) -> None:
        order, writer = minutes if worker % 2 else minutes[::-1], uuid.uuid4().hex
        try:
            for number in range(1, 11):
                write_batch(UsageBatch(writer, number, {at(minute): sums(error="e") for minute in order}, {}))
        finally:
            connection.close()

    def roll(_: int) -> None:
        try:
            for _ in range(10):
                roll_up(NOW, keep_minutes=timedelta(hours=1))
        finally:
            connection.close()

    with ThreadPoolExecutor(5) as threads:
        futures = [threads.submit(write, worker) for worker in range(4)] + [threads.submit(roll, 0)]
        for future in futures:
            future.result(30)
    total = everything()
    assert total.counts["turns"] == 4 * 10 * 6
    assert total.errors == {"e": 240}
    assert sum(total.ttft) == 240


@pytest.mark.usefixtures("either_database")
def test_a_batch_that_is_written_twice_counts_once() -> None:
    writer, other = uuid.uuid4().hex, uuid.uuid4().hex
    first, second = (UsageBatch(writer, number, {at(NOW): sums(number)}, {}) for number in (1, 2))
    for batch in (first, first, second, first, second, UsageBatch(other, 1, {at(NOW): sums(4)}, {})):
        write_batch(batch)
    assert everything().counts["turns"] == 1 + 2 + 4


@pytest.mark.usefixtures("either_database")
def test_a_batch_that_fails_can_be_written_again() -> None:
    writer = uuid.uuid4().hex
    with pytest.raises(IntegrityError):
        write_batch(UsageBatch(writer, 1, {at(NOW): sums(), at(NOW, prefix=""): sums()}, {}))
    write_batch(UsageBatch(writer, 1, {at(NOW): sums()}, {}))
    assert everything().counts["turns"] == 1


@pytest.mark.usefixtures("postgres")
def test_two_attempts_at_one_batch_at_the_same_time_count_once() -> None:
    """As after a thaw: the first attempt's transaction is still open when the next process tries."""
    writer, entered, leave = uuid.uuid4().hex, threading.Event(), threading.Event()
    batches = [UsageBatch(writer, number, {at(NOW): sums()}, {}) for number in (1, 2)]

    def slow(batch: UsageBatch) -> None:
        try:
            with transaction.atomic():
                write_batch(batch)
                entered.set()
                assert leave.wait(10)
        finally:
            connection.close()

    def quick(batch: UsageBatch) -> None:
        try:
            write_batch(batch)
        finally:
            connection.close()

    for batch in batches:
        entered.clear()
        leave.clear()
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(slow, batch)
            assert entered.wait(10)
            again = threads.submit(quick, batch)
            with suppress(TimeoutError):
                again.result(0.2)  # waits for the row
            leave.set()
            first.result(10)
            again.result(10)
    assert everything().counts["turns"] == 2


def test_the_columns_are_the_counters() -> None:
    numbers = {
        field.name for field in Usage._meta.concrete_fields if field.get_internal_type() == "PositiveBigIntegerField"
    }
    assert numbers == set(COUNTERS)

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping

import pytest

from accounts.histogram import BUCKETS, EDGES_MS, add, bucket_of, percentile
from accounts.usage import TurnUsage, UsageKey, UsageLedger, UsageSum
from tests.accounts.conftest import Clock


class Written:
    """Stands for the database: keeps batches, or fails while it is told to."""

    def __init__(self) -> None:
        self.batches: list[dict[UsageKey, UsageSum]] = []
        self.last_used: dict[int, float] = {}
        self.down = False

    def __call__(self, sums: Mapping[UsageKey, UsageSum], last_used: Mapping[int, float]) -> None:
        if self.down:
            raise ConnectionError("no database")
        self.batches.append(dict(sums))
        self.last_used.update(last_used)

    @property
    def turns(self) -> int:
        return sum(each.counts["turns"] for batch in self.batches for each in batch.values())


def turn(prefix: str = "aaaaaaaa", persona: str = "ada", **fields: object) -> TurnUsage:
    return TurnUsage(key_id=1, key_prefix=prefix, persona=persona, **fields)  # type: ignore[arg-type]


async def test_sums_per_minute_key_and_persona(clock: Clock) -> None:
    written = Written()
    ledger = UsageLedger(written, clock=clock)
    minute = int(clock.now // 60) * 60
    ledger.record(turn(prompt_tokens=10, cached_tokens=4, completion_tokens=5, ttft_ms=12.0, tool="no"))
    ledger.record(turn(prompt_tokens=10, tool_prompt_tokens=3, tool_completion_tokens=2, tool="yes", suppressed=2))
    ledger.record(turn(cancelled=True, barge_in=True, error_code="generation_timeout"))
    ledger.record_error("aaaaaaaa", "message_rate_limited", "ada")
    ledger.record(turn(persona=""))
    clock.now += 60
    ledger.record(turn())
    assert await ledger.flush()
    (batch,) = written.batches
    assert set(batch) == {
        UsageKey(minute, "aaaaaaaa", "ada"), UsageKey(minute, "aaaaaaaa", ""), UsageKey(minute + 60, "aaaaaaaa", "ada"),
    }  # fmt: skip
    sums = batch[UsageKey(minute, "aaaaaaaa", "ada")]
    assert {name: count for name, count in sums.counts.items() if count} == {
        "turns": 3, "prompt_tokens": 20, "cached_tokens": 4, "completion_tokens": 5, "tool_prompt_tokens": 3,
        "tool_completion_tokens": 2, "cancels": 1, "barge_ins": 1, "tool_yes": 1, "tool_no": 1, "suppressed": 2,
    }  # fmt: skip
    assert sums.total_tokens == 30
    assert sums.errors == {"generation_timeout": 1, "message_rate_limited": 1}
    assert sums.ttft == [int(index == bucket_of(12.0)) for index in range(BUCKETS)]
    assert written.last_used == {1: clock.now}


async def test_the_budget_counts_the_same_tokens_as_the_rows() -> None:
    one = turn(prompt_tokens=7, cached_tokens=5, completion_tokens=3, tool_prompt_tokens=2, tool_completion_tokens=1)
    sums = UsageSum()
    sums.add_turn(one)
    assert one.total_tokens == sums.total_tokens == 13


async def test_more_cached_than_asked_cannot_spoil_a_batch() -> None:
    sums = UsageSum()
    sums.add_turn(turn(prompt_tokens=3, cached_tokens=16))
    assert sums.counts["cached_tokens"] == 3


async def test_nothing_to_write_is_no_transaction(clock: Clock) -> None:
    written = Written()
    ledger = UsageLedger(written, clock=clock)
    assert await ledger.flush()
    assert written.batches == []


async def test_a_database_that_is_down_loses_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    written = Written()
    ledger = UsageLedger(written, clock=clock)
    written.down = True
    for _ in range(3):
        ledger.record(turn(prompt_tokens=1))
        assert not await ledger.flush()
    assert len([line for line in caplog.records if line.levelno == logging.ERROR]) == 1
    written.down = False
    ledger.record(turn(prompt_tokens=1))
    assert await ledger.flush()
    (batch,) = written.batches
    assert [each.counts["prompt_tokens"] for each in batch.values()] == [4]
    assert written.last_used == {1: clock.now}


async def test_what_is_kept_is_bounded_and_the_oldest_goes(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    written = Written()
    ledger = UsageLedger(written, clock=clock, max_rows=3)
    written.down = True
    for _ in range(5):
        ledger.record(turn())
        await ledger.flush()
        clock.now += 60
    written.down = False
    assert await ledger.flush()
    minute = int(clock.now // 60) * 60
    assert sorted(key.minute for key in written.batches[0]) == [minute - 180, minute - 120, minute - 60]
    assert "given up" in caplog.text


async def test_the_background_task_writes_and_close_writes_the_rest(clock: Clock) -> None:
    written, done = Written(), threading.Event()

    def write(sums: Mapping[UsageKey, UsageSum], last_used: Mapping[int, float]) -> None:
        written(sums, last_used)
        done.set()

    ledger = UsageLedger(write, clock=clock, interval_s=0.01)
    ledger.start()
    ledger.start()
    ledger.record(turn())
    assert await asyncio.to_thread(done.wait, 5)
    ledger.record(turn())
    await ledger.close()
    assert written.turns == 2


async def test_close_during_a_write_loses_and_doubles_nothing(clock: Clock) -> None:
    entered, leave = threading.Event(), threading.Event()
    written = Written()

    def slow(sums: Mapping[UsageKey, UsageSum], last_used: Mapping[int, float]) -> None:
        entered.set()
        assert leave.wait(5)
        written(sums, last_used)

    ledger = UsageLedger(slow, clock=clock, interval_s=0.001)
    ledger.start()
    ledger.record(turn())
    assert await asyncio.to_thread(entered.wait, 5)
    ledger.record(turn())
    closing = asyncio.create_task(ledger.close())
    await asyncio.sleep(0)
    leave.set()
    await closing
    assert written.turns == 2
    assert len(written.batches) == 2


async def test_turns_during_a_write_are_in_the_next_batch(clock: Clock) -> None:
    written = Written()

    def write(sums: Mapping[UsageKey, UsageSum], last_used: Mapping[int, float]) -> None:
        asyncio.run_coroutine_threadsafe(add_one(), loop).result(5)
        written(sums, last_used)

    async def add_one() -> None:
        ledger.record(turn())

    loop = asyncio.get_running_loop()
    ledger = UsageLedger(write, clock=clock)
    ledger.record(turn())
    assert await ledger.flush()
    assert written.turns == 1
    assert await ledger.flush()
    assert written.turns == 2


def test_histogram_edges_are_inclusive_and_the_last_bucket_is_open() -> None:
    assert list(EDGES_MS) == sorted(set(EDGES_MS))
    assert [bucket_of(ms) for ms in (0.0, 5.0, 5.1, 10_000.0, 1e9)] == [0, 0, 1, BUCKETS - 2, BUCKETS - 1]


def test_percentiles_lie_in_the_right_bucket() -> None:
    histogram = [0] * BUCKETS
    for ms in (*[45.0] * 90, *[450.0] * 10):
        histogram[bucket_of(ms)] += 1
    median, high = percentile(histogram, 0.5), percentile(histogram, 0.95)
    assert median is not None
    assert high is not None
    assert 40 < median <= 50
    assert 400 < high <= 500
    assert percentile([], 0.5) is None
    assert percentile([0] * BUCKETS, 0.95) is None
    slow = [0] * BUCKETS
    slow[-1] = 1
    assert percentile(slow, 0.5) == EDGES_MS[-1]
    assert percentile([4], 0.5) == 2.5


def test_histograms_of_any_length_add_up() -> None:
    assert add([], [1, 2], [1] * BUCKETS)[:3] == [2, 3, 1]
    assert len(add()) == BUCKETS

from __future__ import annotations

import asyncio
import logging

import pytest

from accounts.breaker import DependencyAway
from accounts.histogram import BUCKETS, EDGES_MS, add, bucket_of, percentile
from accounts.usage import TurnUsage, UsageBatch, UsageKey, UsageLedger, UsageSum
from tests.accounts.conftest import Clock


class Written:
    """Stands for the database: keeps batches, or fails while it is ``down``."""

    def __init__(self) -> None:
        self.batches: list[UsageBatch] = []
        self.down: Exception | None = None

    async def __call__(self, batch: UsageBatch) -> None:
        if self.down is not None:
            raise self.down
        self.batches.append(batch)

    @property
    def turns(self) -> int:
        return sum(batch.turns for batch in self.batches)

    @property
    def last_used(self) -> dict[int, float]:
        return {key: when for batch in self.batches for key, when in batch.last_used.items()}


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
    assert set(batch.sums) == {
        UsageKey(minute, "aaaaaaaa", "ada"), UsageKey(minute, "aaaaaaaa", ""), UsageKey(minute + 60, "aaaaaaaa", "ada"),
    }  # fmt: skip
    assert (batch.turns, batch.tokens) == (5, 30)
    sums = batch.sums[UsageKey(minute, "aaaaaaaa", "ada")]
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
    written.down = OSError("no space left on device")
    for _ in range(3):
        ledger.record(turn(prompt_tokens=1))
        assert not await ledger.flush()
        assert ledger.failing
    assert len([line for line in caplog.records if line.levelno == logging.ERROR]) == 1
    written.down = None
    ledger.record(turn(prompt_tokens=1))
    assert await ledger.flush()
    assert not ledger.failing
    assert [(batch.number, batch.turns) for batch in written.batches] == [(1, 1), (2, 3)]
    assert written.last_used == {1: clock.now}
    assert [record.message for record in caplog.records][-1] == "usage is written again"


async def test_a_database_that_is_away_is_logged_by_its_breaker_alone(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    written = Written()
    ledger = UsageLedger(written, clock=clock)
    written.down = DependencyAway("database")
    ledger.record(turn())
    assert not await ledger.flush()
    written.down = None
    assert await ledger.flush()
    assert caplog.records == []
    assert written.turns == 1


async def test_a_batch_is_tried_again_as_it_was(clock: Clock) -> None:
    """It may have been written although its answer was lost: its number must stand for the same turns."""
    written, seen = Written(), []

    async def write(batch: UsageBatch) -> None:
        seen.append((batch.writer, batch.number, batch.turns))
        await written(batch)

    ledger = UsageLedger(write, clock=clock)
    written.down = OSError()
    ledger.record(turn())
    await ledger.flush()
    ledger.record(turn())
    await ledger.flush()
    written.down = None
    await ledger.flush()
    assert [(number, turns) for _, number, turns in seen] == [(1, 1), (1, 1), (1, 1), (2, 1)]
    assert len({writer for writer, _, _ in seen}) == 1


async def test_what_is_kept_is_bounded_and_the_oldest_goes(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    written = Written()
    ledger = UsageLedger(written, clock=clock, max_rows=3)
    written.down = OSError()
    for _ in range(5):
        ledger.record(turn())
        await ledger.flush()
        clock.now += 60
    written.down = None
    assert await ledger.flush()
    minute = int(clock.now // 60) * 60
    # The first batch has a number already; of the rest the oldest went.
    assert sorted(key.minute for batch in written.batches for key in batch.sums) == [
        minute - 300, minute - 120, minute - 60,
    ]  # fmt: skip
    assert "dropped" in caplog.text


async def test_the_background_task_writes_and_close_writes_the_rest(clock: Clock) -> None:
    written, done = Written(), asyncio.Event()

    async def write(batch: UsageBatch) -> None:
        await written(batch)
        done.set()

    ledger = UsageLedger(write, clock=clock, interval_s=0.01)
    ledger.start()
    ledger.start()
    ledger.record(turn())
    async with asyncio.timeout(5):
        await done.wait()
    ledger.record(turn())
    assert await ledger.close() == []
    assert written.turns == 2


async def test_close_during_a_write_loses_and_doubles_nothing(clock: Clock) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    written = Written()

    async def slow(batch: UsageBatch) -> None:
        entered.set()
        await leave.wait()
        await written(batch)

    ledger = UsageLedger(slow, clock=clock, interval_s=0.001)
    ledger.start()
    ledger.record(turn())
    async with asyncio.timeout(5):
        await entered.wait()
    ledger.record(turn())
    closing = asyncio.create_task(ledger.close())
    await asyncio.sleep(0)
    leave.set()
    assert await closing == []
    assert [(batch.number, batch.turns) for batch in written.batches] == [(1, 1), (2, 1)]


async def test_a_write_that_hangs_at_the_end_is_handed_back_with_everything_else(clock: Clock) -> None:
    async def hangs(batch: UsageBatch) -> None:
        await asyncio.Event().wait()

    ledger = UsageLedger(hangs, clock=clock, interval_s=0.001)
    ledger.start()
    ledger.record(turn(prompt_tokens=5))
    await asyncio.sleep(0.05)
    ledger.record(turn(prompt_tokens=7))
    left = await ledger.close(timeout_s=0.05)
    assert [(batch.number, batch.turns, batch.tokens) for batch in left] == [(1, 1, 5), (2, 1, 7)]


async def test_batches_of_an_ended_process_are_written_first_and_as_they_were(clock: Clock) -> None:
    ended = UsageLedger(Written(), clock=clock)
    ended._write.down = OSError()  # type: ignore[attr-defined]
    ended.record(turn())
    left = await ended.close()
    written = Written()
    ledger = UsageLedger(written, clock=clock)
    ledger.record(turn())
    ledger.take_up(left)
    assert await ledger.flush()
    assert written.batches[0] == left[0]
    assert written.turns == 2


async def test_turns_during_a_write_are_in_the_next_batch(clock: Clock) -> None:
    written = Written()

    async def write(batch: UsageBatch) -> None:
        ledger.record(turn())
        await written(batch)

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

"""The statistics of engine steps on their way to Prometheus, with a logger in the place of vLLM's."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest

from inference.engines import engine_metrics
from inference.engines.engine_metrics import EngineMetrics, stat_logger


class Histogram:
    def __init__(self) -> None:
        self.observed: list[float] = []

    def observe(self, value: float) -> None:
        self.observed.append(value)


class BaseLogger:
    """Records as vLLM's ``PrometheusStatLogger`` does."""

    def __init__(self) -> None:
        self.tokens = Histogram()
        self.histogram_iteration_tokens: dict[int, Any] = {0: self.tokens}
        self.counts: Counter[str] = Counter()
        self.written = 0
        self.running = 0

    def record(self, scheduler: Any, iteration: Any, mm_cache_stats: Any = None, engine_idx: int = 0) -> None:
        self.written += 1
        if scheduler is not None:
            self.running = scheduler.num_running_reqs
            self.counts["queries"] += scheduler.prefix_cache_stats.queries
        if iteration is not None:
            computed, decoded = iteration.prompt_token_stats.computed, iteration.num_generation_tokens
            self.counts["decoded"] += decoded
            self.counts["prompt"] += iteration.num_prompt_tokens
            self.counts["gaps"] += len(iteration.inter_token_latencies_iter)
            self.counts["firsts"] += len(iteration.time_to_first_tokens_iter)
            self.counts["finished"] += len(iteration.finished_requests)
            self.counts["preempted"] += iteration.num_preempted_reqs
            self.histogram_iteration_tokens[engine_idx].observe(computed + decoded)


class Iteration(SimpleNamespace):
    """vLLM's ``IterationStats``."""

    @property
    def num_prompt_tokens(self) -> int:
        return int(self.prompt_token_stats.total)


def step(
    decoded: int = 1, *, prompt: int = 0, cached: int = 0, finished: int = 0, running: int = 1, **more: Any
) -> tuple[Any, Any]:
    prefix = SimpleNamespace(queries=prompt, hits=cached, reset=False)
    iteration = Iteration(
        iteration_timestamp=1.5,
        prompt_token_stats=SimpleNamespace(computed=prompt - cached, total=prompt),
        num_generation_tokens=decoded,
        num_preempted_reqs=0,
        finished_requests=["one"] * finished,
        time_to_first_tokens_iter=[0.1] if prompt else [],
        inter_token_latencies_iter=[0.01] * (0 if prompt else decoded),
    )
    vars(iteration).update({name: value for name, value in more.items() if name in vars(iteration)})
    kinds = {name: value for name, value in more.items() if name not in vars(iteration)}
    return SimpleNamespace(num_running_reqs=running, prefix_cache_stats=prefix, **kinds), iteration


@pytest.fixture
def made() -> tuple[Any, EngineMetrics]:
    logger_class, metrics = stat_logger(BaseLogger)
    return logger_class(), metrics


async def _written(subject: Any, records: int) -> None:
    async with asyncio.timeout(5):
        while subject.written < records:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_steps_are_written_together_and_nothing_of_them_is_lost(
    made: tuple[Any, EngineMetrics], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_metrics, "LATEST_S", 0.05)
    subject, metrics = made
    steps = [step(prompt=7, cached=3), step(2, num_preempted_reqs=1), step(2, finished=1), step(prompt=5), step(4)]
    for record, first in enumerate((0, len(steps)), 1):
        for number, (scheduler, iteration) in enumerate(deepcopy(steps), first):
            scheduler.num_running_reqs = number
            subject.record(scheduler, iteration)
        subject.record(None, step(finished=1)[1])
        assert subject.written == record - 1
        await _written(subject, record)
        assert subject.running == first + len(steps) - 1
        once = {"decoded": 11, "prompt": 12, "queries": 12, "gaps": 9, "firsts": 2, "finished": 2, "preempted": 1}
        assert subject.counts == {name: record * count for name, count in once.items()}
        assert subject.tokens.observed == [5, 2, 2, 6, 4, 1] * record
    assert subject.written == 2
    assert metrics.snapshot(0)["generated"] == 22


@pytest.mark.parametrize("more", [{"spec_decoding_stats": object()}, {"kv_connector_stats": {"a": 1}}])
async def test_a_step_with_statistics_of_its_own_is_written_by_itself(
    made: tuple[Any, EngineMetrics], more: Any
) -> None:
    subject, _ = made
    subject.record(*step(3))
    for _ in range(2):
        subject.record(*step(2, **more))
    await asyncio.sleep(0)
    assert subject.written == 3
    assert subject.tokens.observed == [3, 2, 2]
    subject.record(*step(), mm_cache_stats=SimpleNamespace(queries=1))
    subject.record(step()[0], None)
    await asyncio.sleep(0)
    assert subject.written == 5


async def test_statistics_that_cannot_be_written_are_told_and_end_nothing(
    made: tuple[Any, EngineMetrics], caplog: pytest.LogCaptureFixture
) -> None:
    subject, _ = made
    subject.histogram_iteration_tokens.clear()
    with caplog.at_level(logging.ERROR):
        subject.record(*step(prompt=3, perf_stats=object()))
        subject.record(object(), object())
        await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == [
        "the statistics of one engine step were not kept",
        "the statistics of one engine step were not recorded",
    ]

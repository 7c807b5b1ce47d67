"""The statistics of engine steps on their way to Prometheus, with a logger in the place of vLLM's."""

from __future__ import annotations

import asyncio
import logging
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
        self.records: list[tuple[int, int, list[float]]] = []
        self.running = 0

    def record(self, scheduler: Any, iteration: Any, mm_cache_stats: Any = None, engine_idx: int = 0) -> None:
        if scheduler is not None:
            self.running = scheduler.num_running_reqs
        if iteration is not None:
            prompt, decoded = iteration.num_prompt_tokens, iteration.num_generation_tokens
            self.records.append((prompt, decoded, iteration.inter_token_latencies_iter))
            self.histogram_iteration_tokens[engine_idx].observe(prompt + decoded)


def step(tokens: int = 1, prompt: int = 0, running: int = 1, **more: Any) -> tuple[Any, Any]:
    prefix = SimpleNamespace(queries=prompt, hits=0)
    scheduler = SimpleNamespace(num_running_reqs=running, prefix_cache_stats=prefix)
    fields = {"num_generation_tokens": tokens, "num_prompt_tokens": prompt, "finished_requests": [], **more}
    return scheduler, SimpleNamespace(inter_token_latencies_iter=[0.01] * tokens, **fields)


@pytest.fixture
def made() -> tuple[Any, EngineMetrics]:
    logger_class, metrics = stat_logger(BaseLogger)
    return logger_class(), metrics


async def test_decoding_steps_are_written_together_before_the_next_step_of_another_kind(
    made: tuple[Any, EngineMetrics],
) -> None:
    subject, metrics = made
    for each in (step(prompt=7), step(), step(2), step(3, running=5), step(finished_requests=["one"], running=4)):
        subject.record(*each)
    await asyncio.sleep(0)
    assert [(prompt, decoded, len(gaps)) for prompt, decoded, gaps in subject.records] == [
        (7, 1, 1),
        (0, 6, 6),
        (0, 1, 1),
    ]
    assert subject.tokens.observed == [8, 1, 2, 3, 1]
    assert subject.running == 4
    assert metrics.snapshot(0)["generated"] == 8


async def test_decoding_steps_are_written_in_time(
    made: tuple[Any, EngineMetrics], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_metrics, "LATEST_S", 0.01)
    subject, _ = made
    for _ in range(2):
        subject.record(*step(running=3))
        subject.record(*step(running=2))
        assert not subject.records
        async with asyncio.timeout(5):
            while not subject.records:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert subject.records.pop()[:2] == (0, 2)
        assert subject.running == 2
    assert subject.tokens.observed == [1] * 4


@pytest.mark.parametrize(
    "more", [{"finished_requests": [1]}, {"num_preempted_reqs": 1}, {"time_to_first_tokens_iter": [0.1]}]
)
async def test_a_step_with_more_than_tokens_stands_alone(made: tuple[Any, EngineMetrics], more: Any) -> None:
    subject, _ = made
    for each in (step(**more), step(**more)):
        subject.record(*each)
    await asyncio.sleep(0)
    assert len(subject.records) == 2


async def test_statistics_that_cannot_be_written_are_told_and_end_nothing(
    made: tuple[Any, EngineMetrics], caplog: pytest.LogCaptureFixture
) -> None:
    subject, _ = made
    subject.histogram_iteration_tokens.clear()
    with caplog.at_level(logging.ERROR):
        subject.record(*step(prompt=3))
        subject.record(object(), object())
        await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == [
        "the statistics of one engine step were not kept",
        "the statistics of one engine step were not recorded",
    ]

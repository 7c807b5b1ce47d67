"""Statistics of one vLLM engine: Prometheus series in a registry of its own, and the numbers for the status page."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from inference.engines.step_statistics import Steps, StepSums, may_be_summed

LATEST_S = 0.5
"""Longest time that statistics wait to be written, seconds."""

logger = logging.getLogger(__name__)


class EngineMetrics:
    """Keeps the last statistics of one engine's scheduler.

    Attributes:
        registry: the engine's ``prometheus_client.CollectorRegistry``. With the default registry the second engine's
            stat logger would unregister the series of the first (vllm/v1/metrics/loggers.py, PrometheusStatLogger).
    """

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry

        self.registry = CollectorRegistry()
        self._last: Any = None
        self._queries = self._hits = self._generated = 0

    def keep(self, scheduler: Any, iteration: Any) -> None:
        """Take the statistics of one step: vLLM's ``SchedulerStats`` and ``IterationStats``, each may be None."""
        if iteration is not None:
            self._generated += iteration.num_generation_tokens
        if scheduler is None:
            return
        self._last = scheduler
        self._queries += scheduler.prefix_cache_stats.queries
        self._hits += scheduler.prefix_cache_stats.hits

    def snapshot(self, unfinished: int) -> dict[str, Any]:
        """Return the numbers for the status page.

        Args:
            unfinished: open requests. An idle scheduler sends no statistics, so its last ones count only beside open
                requests.
        """
        busy = self._last if unfinished else None
        waiting = min(busy.num_waiting_reqs + busy.num_skipped_waiting_reqs, unfinished) if busy else 0
        return {
            "running": unfinished - waiting,
            "waiting": waiting,
            "kv_usage": busy.kv_cache_usage if busy else 0.0,
            "prefix_hit_rate": self._hits / self._queries if self._queries else 0.0,
            "generated": self._generated,
        }


class _TokensOfSteps:
    """One engine's histogram of the tokens of a step: gets the steps of a sum one by one."""

    def __init__(self, histogram: Any) -> None:
        self._histogram = histogram
        self.steps: list[int] = []

    def observe(self, tokens: float) -> None:
        """Observe a step of ``tokens``, or the steps of the sum that is being written."""
        for each in self.steps or (tokens,):
            self._histogram.observe(each)


def stat_logger(base: type[Any]) -> tuple[type[Any], EngineMetrics]:
    """Return a stat logger class for one engine, and the metrics that it fills.

    Args:
        base: vLLM's ``PrometheusStatLogger``.

    The logger never raises: an exception in a stat logger ends the engine
    (vllm/v1/engine/async_llm.py, output_handler). The series are written at most ``LATEST_S`` seconds late.
    """
    from prometheus_client import Counter, Gauge, Histogram

    metrics = EngineMetrics()

    class StatLogger(base):  # type: ignore[misc, unused-ignore]
        _gauge_cls = partial(Gauge, registry=metrics.registry)
        _counter_cls = partial(Counter, registry=metrics.registry)
        _histogram_cls = partial(Histogram, registry=metrics.registry)

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._sums = StepSums()
            self._timer: asyncio.TimerHandle | None = None
            histograms = vars(self)["histogram_iteration_tokens"]  # engine index to histogram
            self._tokens = {engine: _TokensOfSteps(histogram) for engine, histogram in histograms.items()}
            self.histogram_iteration_tokens = self._tokens

        def record(
            self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
        ) -> None:
            try:
                metrics.keep(scheduler_stats, iteration_stats)
                step = Steps(scheduler_stats, iteration_stats, [], engine_idx, mm_cache_stats)
                if not may_be_summed(step):
                    # The readers of this step's text are scheduled already; the statistics are written after them.
                    asyncio.get_running_loop().call_soon(self._write, [*self._sums.take(), step])
                    return
                self._sums.add(step)
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(LATEST_S, self._write_sums)
            except Exception:
                logger.exception("the statistics of one engine step were not kept")

        def _write_sums(self) -> None:
            self._timer = None
            self._write(self._sums.take())

        def _write(self, steps: list[Steps]) -> None:
            for scheduler, iteration, tokens, engine, multimodal in steps:
                try:
                    self._tokens[engine].steps = tokens
                    super().record(scheduler, iteration, mm_cache_stats=multimodal, engine_idx=engine)
                except Exception:
                    logger.exception("the statistics of one engine step were not recorded")

    return StatLogger, metrics

"""Statistics of one vLLM engine: Prometheus series in a registry of its own, and the numbers for the status page."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

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


def stat_logger(base: type[Any]) -> tuple[type[Any], EngineMetrics]:
    """Return a stat logger class for one engine, and the metrics that it fills.

    Args:
        base: vLLM's ``PrometheusStatLogger``.

    The logger never raises: an exception in a stat logger ends the engine
    (vllm/v1/engine/async_llm.py, output_handler).
    """
    from prometheus_client import Counter, Gauge, Histogram

    metrics = EngineMetrics()

    class StatLogger(base):  # type: ignore[misc, unused-ignore]
        _gauge_cls = partial(Gauge, registry=metrics.registry)
        _counter_cls = partial(Counter, registry=metrics.registry)
        _histogram_cls = partial(Histogram, registry=metrics.registry)

        def record(self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **kwargs: Any) -> None:
            try:
                metrics.keep(scheduler_stats, iteration_stats)
                # The readers of this step's text are scheduled already; the statistics are written after them.
                write = partial(self._write, scheduler_stats, iteration_stats, *args, **kwargs)
                asyncio.get_running_loop().call_soon(write)
            except Exception:
                logger.exception("the statistics of one engine step were not kept")

        def _write(self, *args: Any, **kwargs: Any) -> None:
            try:
                super().record(*args, **kwargs)
            except Exception:
                logger.exception("the statistics of one engine step were not recorded")

    return StatLogger, metrics

"""Statistics of engine steps, added up where steps did nothing but decode.

vLLM's ``PrometheusStatLogger.record`` updates about thirty series for each step: a seventh of the processor time that
a token of a single stream costs. A step that only decodes adds to counters of tokens and to the histogram of gaps,
so such steps are added up and written together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# What makes a step more than a decoding step, by vLLM's names; a version without the name has no such statistics.
_OF_ITERATIONS = (
    "finished_requests", "max_num_generation_tokens_iter", "n_params_iter", "num_corrupted_reqs",
    "num_not_watermarked_reqs", "num_preempted_reqs", "num_prompt_tokens", "num_watermark_skipped_reqs",
    "num_watermarked_reqs", "time_to_first_tokens_iter",
)  # fmt: skip
_OF_SCHEDULERS = (
    "connector_prefix_cache_stats", "ec_connector_stats", "iteration_details", "kv_cache_eviction_events",
    "kv_connector_stats", "perf_stats", "running_lora_adapters", "spec_decoding_stats", "waiting_lora_adapters",
)  # fmt: skip


class Steps(NamedTuple):
    """The statistics of one or more steps.

    Args:
        scheduler: vLLM's ``SchedulerStats`` of the last step; None where the step has none.
        iteration: vLLM's ``IterationStats``, summed; None where the step has none.
        tokens: the tokens that each of the summed steps decoded. Empty for a step that stands alone.
        engine: vLLM's index of the engine.
        multimodal: vLLM's ``MultiModalCacheStats``, or None.
    """

    scheduler: Any
    iteration: Any
    tokens: list[int]
    engine: int
    multimodal: Any


def only_decodes(step: Steps) -> bool:
    """Return whether a step did nothing but decode tokens of running requests."""
    scheduler, iteration, multimodal = step.scheduler, step.iteration, step.multimodal
    if scheduler is None or iteration is None or (multimodal is not None and multimodal.queries):
        return False
    if scheduler.prefix_cache_stats.queries or any(getattr(scheduler, name, None) for name in _OF_SCHEDULERS):
        return False
    return not any(getattr(iteration, name, None) for name in _OF_ITERATIONS)


class StepSums:
    """Adds up consecutive decoding steps of each engine."""

    def __init__(self) -> None:
        self._sums: dict[int, Steps] = {}

    def add(self, step: Steps) -> None:
        """Add a step for which :func:`only_decodes` is true."""
        decoded = step.iteration.num_generation_tokens
        before = self._sums.get(step.engine)
        if before is None:
            self._sums[step.engine] = step._replace(tokens=[decoded])
            return
        before.tokens.append(decoded)
        before.iteration.num_generation_tokens += decoded
        before.iteration.inter_token_latencies_iter += step.iteration.inter_token_latencies_iter
        self._sums[step.engine] = before._replace(scheduler=step.scheduler)

    def take(self) -> list[Steps]:
        """Return the sums, one for each engine, and begin anew."""
        sums, self._sums = self._sums, {}
        return list(sums.values())

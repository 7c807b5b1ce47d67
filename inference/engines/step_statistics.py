"""Statistics of engine steps, added up before they are written to Prometheus.

vLLM's ``PrometheusStatLogger.record`` updates about thirty series for each step: a seventh of the processor time that
a token of a single stream costs. Counters and histograms take a sum as well as its parts, and of gauges the last value
counts, so consecutive steps are added up and written together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# Statistics that are written with each step, by vLLM's names; a version without the name has no such statistics.
_OF_ONE_STEP = (
    "connector_prefix_cache_stats", "ec_connector_stats", "iteration_details", "kv_cache_eviction_events",
    "kv_connector_stats", "perf_stats", "running_lora_adapters", "spec_decoding_stats", "waiting_lora_adapters",
)  # fmt: skip


class Steps(NamedTuple):
    """The statistics of one or more steps.

    Args:
        scheduler: vLLM's ``SchedulerStats`` of the last step, with the prefix cache statistics of all; None where the
            step has none.
        iteration: vLLM's ``IterationStats``, summed; None where the step has none.
        tokens: the tokens that each of the summed steps computed. Empty for a step that stands alone.
        engine: vLLM's index of the engine.
        multimodal: vLLM's ``MultiModalCacheStats``, or None.
    """

    scheduler: Any
    iteration: Any
    tokens: list[int]
    engine: int
    multimodal: Any


def may_be_summed(step: Steps) -> bool:
    """Return whether a step has nothing but statistics that can be added up."""
    if step.iteration is None or (step.multimodal is not None and step.multimodal.queries):
        return False
    return not any(getattr(step.scheduler, name, None) for name in _OF_ONE_STEP)


def add_statistics(total: Any, more: Any) -> None:
    """Add the counts and lists of ``more`` to ``total``, an object of the same class. Times stay those of ``total``."""
    for name, value in vars(more).items():
        if isinstance(value, list):
            getattr(total, name).extend(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            setattr(total, name, getattr(total, name) + value)
        elif hasattr(value, "__dict__"):
            add_statistics(getattr(total, name), value)


class StepSums:
    """Adds up consecutive steps of each engine."""

    def __init__(self) -> None:
        self._sums: dict[int, Steps] = {}

    def add(self, step: Steps) -> None:
        """Add a step for which :func:`may_be_summed` is true."""
        iteration, scheduler, before = step.iteration, step.scheduler, self._sums.get(step.engine)
        if before is None:
            self._sums[step.engine] = step._replace(tokens=[_computed_tokens(iteration)])
            return
        before.tokens.append(_computed_tokens(iteration))
        if iteration.num_prompt_tokens or iteration.time_to_first_tokens_iter or iteration.finished_requests:
            add_statistics(before.iteration, iteration)
        else:  # nearly every step: only the tokens of running requests
            before.iteration.num_generation_tokens += iteration.num_generation_tokens
            before.iteration.num_preempted_reqs += iteration.num_preempted_reqs
            before.iteration.inter_token_latencies_iter += iteration.inter_token_latencies_iter
        if scheduler is not None:
            if before.scheduler is not None:
                add_statistics(scheduler.prefix_cache_stats, before.scheduler.prefix_cache_stats)
            self._sums[step.engine] = before._replace(scheduler=scheduler)

    def take(self) -> list[Steps]:
        """Return the sums, one for each engine, and start with none."""
        sums, self._sums = self._sums, {}
        return list(sums.values())


def _computed_tokens(iteration: Any) -> int:
    """Return the tokens that a step computed; with the cached ones where vLLM has no ``PromptTokenStats``."""
    prompt = getattr(iteration, "prompt_token_stats", None)
    computed = iteration.num_prompt_tokens if prompt is None else prompt.computed
    return int(computed + iteration.num_generation_tokens)

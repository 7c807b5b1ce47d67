"""Counts tokens that an engine generates after an abort (metric `yap_tokens_after_cancel_total`).

vLLM drops these tokens in `OutputProcessor.process_outputs`. This module wraps that method, and counts only during
the steps that follow an abort.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Protocol

STEPS_AFTER_ABORT = 64  # an abort takes effect after one or two


class OutputProcessor(Protocol):
    """The used part of vLLM's `OutputProcessor`."""

    @property
    def request_states(self) -> Container[str]: ...

    def process_outputs(self, outputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any: ...


class Counter(Protocol):
    """A Prometheus counter."""

    def inc(self, amount: float) -> None: ...


class LateTokens:
    """Wraps `processor.process_outputs` and adds late tokens to `counter`."""

    def __init__(self, processor: OutputProcessor, counter: Counter) -> None:
        self._states = processor.request_states
        self._process = processor.process_outputs
        self._counter = counter
        self._steps = 0
        processor.process_outputs = self._look  # type: ignore[method-assign]

    def aborted(self) -> None:
        """Note an abort: count during the next steps."""
        self._steps = STEPS_AFTER_ABORT

    def _look(self, outputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        if self._steps:
            self._steps -= 1
            late = sum(len(output.new_token_ids) for output in outputs if output.request_id not in self._states)
            if late:
                self._counter.inc(late)
        return self._process(outputs, *args, **kwargs)

"""Tokens that an engine still generates for requests that were aborted: what a cancel costs, measured.

vLLM drops them where it hands outputs to their readers. This looks there, but only at the steps that follow an abort.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Protocol

STEPS_AFTER_ABORT = 64  # an abort is in force after one or two


class OutputProcessor(Protocol):
    """The part of vLLM's ``OutputProcessor`` that is touched."""

    @property
    def request_states(self) -> Container[str]: ...

    def process_outputs(self, outputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any: ...


class Counter(Protocol):
    """A Prometheus counter."""

    def inc(self, amount: float) -> None: ...


class LateTokens:
    """Stands in front of ``processor.process_outputs`` from now on; adds what comes too late to ``counter``."""

    def __init__(self, processor: OutputProcessor, counter: Counter) -> None:
        self._states = processor.request_states
        self._process = processor.process_outputs
        self._counter = counter
        self._steps = 0
        processor.process_outputs = self._look  # type: ignore[method-assign]

    def aborted(self) -> None:
        """A request is being aborted: look at what comes."""
        self._steps = STEPS_AFTER_ABORT

    def _look(self, outputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        if self._steps:
            self._steps -= 1
            late = sum(len(output.new_token_ids) for output in outputs if output.request_id not in self._states)
            if late:
                self._counter.inc(late)
        return self._process(outputs, *args, **kwargs)

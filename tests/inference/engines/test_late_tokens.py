from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inference.engines.late_tokens import STEPS_AFTER_ABORT, LateTokens


@dataclass
class Output:
    request_id: str
    new_token_ids: list[int]


@dataclass
class Processor:
    """Drops what belongs to no request, as vLLM's does."""

    request_states: set[str] = field(default_factory=lambda: {"a", "b"})
    given: list[Any] = field(default_factory=list)

    def process_outputs(self, outputs: Sequence[Any], *args: Any, **kwargs: Any) -> str:
        self.given.append((args, kwargs))
        return "processed"


class Count:
    total = 0.0

    def inc(self, amount: float) -> None:
        self.total += amount


def test_only_tokens_of_aborted_requests_are_counted() -> None:
    processor, count = Processor(), Count()
    late = LateTokens(processor, count)
    step = [Output("a", [1]), Output("b", [2, 3])]
    assert processor.process_outputs(step, 1.0, weight_version=2) == "processed"
    assert processor.given == [((1.0,), {"weight_version": 2})]
    processor.request_states.remove("b")
    processor.process_outputs(step)
    assert count.total == 0  # nobody has looked: no abort was told
    late.aborted()
    processor.process_outputs(step)
    assert count.total == 2
    for _ in range(STEPS_AFTER_ABORT):
        processor.process_outputs([Output("a", [1])])
    processor.process_outputs(step)
    assert count.total == 2  # long after, it looks no more

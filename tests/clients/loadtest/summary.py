"""Summary of a load test: percentiles, rates, and counts of refused and failed turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from loadtest.record import TurnRecord

FORMAT = 1
PERCENTILES = (50, 90, 95, 99)
METRICS = {
    "first_token_ms": "first token",
    "repeat_first_token_ms": "first token, repeated",
    "first_sentence_ms": "first sentence",
    "tool_ms": "tool decision",
    "total_ms": "total",
    "gap_ms": "gap between tokens",
    "connect_ms": "connecting",
    "interrupt_ms": "interruption to silence",
}


def percentile(values: Sequence[float], share: float) -> float:
    """Compute a percentile, linear between the two nearest values.

    Args:
        values: sorted values, at least one.
        share: 0 to 100.
    """
    place = (len(values) - 1) * share / 100
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def describe(values: Iterable[float | None]) -> dict[str, float] | None:
    """Compute count, mean, percentiles and maximum.

    Args:
        values: values in any order; None is skipped.

    Returns:
        The figures, or None if there is no value.
    """
    found = sorted(value for value in values if value is not None)
    if not found:
        return None
    shares = {f"p{share}": round(percentile(found, share), 2) for share in PERCENTILES}
    return {"count": len(found), "mean": round(sum(found) / len(found), 2), **shares, "max": round(found[-1], 2)}


def summarise(records: Sequence[TurnRecord], wall_s: float) -> dict[str, Any]:
    """Compute the figures of one test.

    Args:
        records: all turns.
        wall_s: duration of the test, seconds.

    Returns:
        Counts, times in milliseconds, and rates per second of the whole test.
    """
    once = [record for record in records if not record.repeat]
    values: dict[str, Iterable[float | None]] = {
        "first_token_ms": (record.first_token_ms for record in once),
        "repeat_first_token_ms": (record.first_token_ms for record in records if record.repeat),
        "first_sentence_ms": (record.first_sentence_ms for record in once),
        "tool_ms": (record.tool_ms for record in once),
        "total_ms": (record.total_ms for record in once),
        "gap_ms": (gap for record in records for gap in record.gaps_ms),
        "connect_ms": (record.connect_ms for record in once),
        "interrupt_ms": (record.interrupt_ms for record in records),
    }
    described = {name: describe(found) for name, found in values.items()}
    counted = all(record.tokens is not None for record in records if record.outcome == "ok")
    tokens = sum((record.tokens if counted and record.tokens is not None else record.chunks) for record in records)
    outcomes = Counter(record.outcome for record in records)
    return {
        "turns": {name: outcomes.get(name, 0) for name in ("ok", "interrupted", "refused", "error")},
        "refusals": dict(Counter(record.code for record in records if record.outcome == "refused")),
        "errors": dict(Counter(record.code for record in records if record.outcome == "error")),
        "times": {name: found for name, found in described.items() if found},
        "tokens": tokens,
        "tokens_are": "tokens" if counted else "frames",
        "tokens_per_s": round(tokens / wall_s, 2) if wall_s else 0.0,
        "turns_per_s": round(outcomes.get("ok", 0) / wall_s, 3) if wall_s else 0.0,
        "wall_s": round(wall_s, 3),
    }

"""Time to first token as a histogram: fixed edges, so that counts of any rows can be added."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

# Upper edges in milliseconds, each inclusive; one more bucket holds what is slower than the last. Rows in the database
# are lists in this order: an edge may only ever be appended.
EDGES_MS: tuple[float, ...] = (
    5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 125, 150, 200, 250, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000,
    10000,
)  # fmt: skip
BUCKETS = len(EDGES_MS) + 1


def bucket_of(ms: float) -> int:
    """The index of the bucket that ``ms`` falls into."""
    return bisect_left(EDGES_MS, ms)


def add(*histograms: Sequence[int]) -> list[int]:
    """The sum of histograms; a short or empty list counts as zeros."""
    total = [0] * BUCKETS
    for histogram in histograms:
        for index, count in enumerate(histogram[:BUCKETS]):
            total[index] += count
    return total


def percentile(histogram: Sequence[int], share: float) -> float | None:
    """The ``share`` quantile (0–1) in milliseconds, interpolated inside its bucket; None of an empty histogram.

    What is slower than the last edge counts as that edge.
    """
    count = sum(histogram)
    if not count:
        return None
    rank, before = share * count, 0
    for index, here in enumerate(histogram):
        if here and before + here >= rank:
            if index >= len(EDGES_MS):
                return EDGES_MS[-1]
            low = EDGES_MS[index - 1] if index else 0.0
            return low + (EDGES_MS[index] - low) * max(0.0, rank - before) / here
        before += here
    return EDGES_MS[-1]


def percentiles(histogram: Sequence[int], shares: Iterable[float] = (0.5, 0.95)) -> tuple[float | None, ...]:
    """Several quantiles of one histogram, in milliseconds."""
    return tuple(percentile(histogram, share) for share in shares)

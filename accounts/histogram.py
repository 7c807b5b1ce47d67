"""Time to first token as a histogram with fixed edges, so that the counts of any rows can be added.

Not hdrhistogram or ddsketch: rows are plain JSON lists, and 26 buckets are precise enough for a chart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

# Upper edges in milliseconds, each inclusive; one more bucket holds times over the last edge. Rows in the database
# are lists in this order: an edge may only ever be appended.
EDGES_MS: tuple[float, ...] = (
    5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 125, 150, 200, 250, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000,
    10000,
)  # fmt: skip
BUCKETS = len(EDGES_MS) + 1


def bucket_of(ms: float) -> int:
    """Return the index of the bucket of a time in milliseconds."""
    return bisect_left(EDGES_MS, ms)


def add(*histograms: Sequence[int]) -> list[int]:
    """Return the sum of histograms. A short or empty list counts as zeros."""
    total = [0] * BUCKETS
    for histogram in histograms:
        for index, count in enumerate(histogram[:BUCKETS]):
            total[index] += count
    return total


def percentile(histogram: Sequence[int], share: float) -> float | None:
    """Return a quantile, interpolated inside its bucket. Times over the last edge count as that edge.

    Args:
        histogram: Counts by bucket.
        share: Which quantile, 0 to 1.

    Returns:
        Milliseconds, or None: the histogram is empty.
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

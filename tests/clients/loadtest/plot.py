"""Picture of a load test: distribution of the times, and times over the duration of the test."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from yapclient import YapError

from loadtest.record import TurnRecord
from loadtest.summary import METRICS

SHOWN = ("tool_ms", "first_token_ms", "first_sentence_ms", "total_ms")


def need_matplotlib() -> None:
    """Check for matplotlib before a test starts.

    Raises:
        YapError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise YapError("--plot needs matplotlib: pip install matplotlib, or omit --plot")


def draw(path: Path, records: Sequence[TurnRecord], title: str) -> None:
    """Write the picture as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (spread, course) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for metric in SHOWN:
        points = [(record.at_s, value) for record in records if (value := getattr(record, metric)) is not None]
        if not points:
            continue
        values = sorted(value for _, value in points)
        shares = [(index + 1) / len(values) for index in range(len(values))]
        spread.step([values[0], *values], [0.0, *shares], where="post", label=METRICS[metric])
        course.plot(*zip(*points, strict=True), ".", markersize=4, label=METRICS[metric])
    for record in records:
        if record.outcome in ("refused", "error"):
            course.axvline(record.at_s, color="tab:red", alpha=0.3, linewidth=1)
    spread.set(xlabel="milliseconds", ylabel="share of turns", xscale="log", ylim=(0, 1))
    course.set(xlabel="seconds into the test (red: refused or failed)", ylabel="milliseconds", yscale="log")
    for axes in (spread, course):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)

"""The dashboard's charts: usage as Chart.js data for Unfold's components."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accounts.usage_reports import UsagePoint

ChartData = dict[str, Any]

_PRIMARY, _LIGHT, _RED = "var(--color-primary-600)", "var(--color-primary-300)", "var(--color-red-500)"
_GREY = "#9ca3af"


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart of the rendered page. ``data`` and ``options`` are JSON."""

    name: str
    title: str
    bars: bool
    data: str
    options: str


def chart_data(points: Sequence[UsagePoint], seconds: float, form: str) -> dict[str, ChartData]:
    """Return Chart.js data by the chart's name.

    Args:
        points: one per step of time.
        seconds: length of a step.
        form: strftime format of the labels.
    """
    labels = [f"{point.start:{form}}" for point in points if point.start]

    def chart(*lines: tuple[str, str, list[Any]]) -> ChartData:
        return {"labels": labels, "datasets": [_line(*line) for line in lines]}

    return {
        "ttft": chart(
            ("p50", _PRIMARY, [_rounded(point.ttft_p50_ms) for point in points]),
            ("p95", _LIGHT, [_rounded(point.ttft_p95_ms) for point in points]),
        ),
        "tokens": chart(
            ("tokens a second", _PRIMARY, [_rounded(p.sums.counts["completion_tokens"] / seconds) for p in points])
        ),
        "turns": chart(("turns", _PRIMARY, [point.sums.counts["turns"] for point in points])),
        "trouble": chart(
            ("cancels", _LIGHT, [point.sums.counts["cancels"] for point in points]),
            ("errors", _RED, [point.errors for point in points]),
        ),
    }


def shown(data: Mapping[str, ChartData]) -> list[Chart]:
    """Return the charts in the order of the page."""
    return [
        _chart("ttft", "Time to first token, ms", data, bars=False, legend=True),
        _chart("tokens", "Tokens a second", data, bars=False),
        _chart("turns", "Turns", data, bars=True),
        _chart("trouble", "Cancels and errors", data, bars=True, legend=True),
    ]


def _chart(name: str, title: str, data: Mapping[str, ChartData], bars: bool, legend: bool = False) -> Chart:
    ticks = {"color": _GREY, "maxRotation": 0, "autoSkipPadding": 16}
    options = {
        "animation": False,
        "responsive": True,
        "maintainAspectRatio": False,
        "interaction": {"mode": "index", "intersect": False},
        "elements": {"line": {"borderWidth": 2}},
        "plugins": {
            "legend": {
                "display": legend, "align": "end",
                "labels": {"boxHeight": 6, "boxWidth": 6, "color": _GREY, "usePointStyle": True},
            }
        },
        "scales": {
            "x": {"ticks": ticks, "grid": {"display": False}, "border": {"display": False}},
            "y": {
                "beginAtZero": True, "suggestedMax": 1, "border": {"display": False}, "grid": {},
                "ticks": {"color": _GREY, "maxTicksLimit": 5, **({"precision": 0} if bars else {})},
            },
        },
    }  # fmt: skip
    return Chart(name, title, bars, json.dumps(data[name]), json.dumps(options))


def _line(label: str, color: str, data: list[Any]) -> ChartData:
    points = 2 if None in data else 0  # a line alone does not show a value between two gaps
    return {
        "label": label, "data": data, "borderColor": color, "backgroundColor": color,
        "pointRadius": points, "pointBorderWidth": 0, "maxBarThickness": 8,
    }  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)

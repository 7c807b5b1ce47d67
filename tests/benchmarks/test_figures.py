"""Arithmetic of the benchmark."""

from __future__ import annotations

from tests.benchmarks.figures import Cell, Results, percentile
from tests.benchmarks.goals import said_and_cached


def test_percentiles_are_interpolated() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert percentile([1.0, 2.0], 1.0) == 2.0


def test_ratios_are_of_the_same_round() -> None:
    cells = [
        Cell("load", system, round_, 1, {"rate": rate})
        for system, rates in (("raw", (10.0, 100.0, 10.0)), ("yap", (9.0, 50.0, 8.0)))
        for round_, rate in enumerate(rates)
    ]
    results = Results({}, cells)
    assert results.ratio("load", "yap", "rate") == 0.8
    assert results.over_raw("load", "yap", "rate") == -2.0


def test_the_first_turn_has_nothing_said_before() -> None:
    rows = [{"said": 100, "cached": 0}, {"said": 200, "cached": 190}, {"said": 200, "cached": 50}]
    assert said_and_cached(rows) == (0.6, 0.25)

"""Figures from samples: percentiles, and each system relative to the raw engine, round by round."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

RAW = "raw"
VLLM = "vllm serve"
VLLM_DEFAULTS = "vllm defaults"
CHAT = "chat-"
"""Begins the name of a system that is Yap's `/v1/chat/completions`; the server's name follows."""
RESPONSES = "responses-"
"""Begins the name of a system that is Yap's Responses WebSocket; the server's name follows."""
OPENAI = (CHAT, RESPONSES)


def percentile(values: Sequence[float], share: float) -> float:
    """Compute a percentile, interpolated.

    Args:
        share: 0 to 1.

    Returns:
        The value; NaN without samples.
    """
    if not values:
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True, slots=True)
class Cell:
    """One scenario on one system in one round. `clients` is 0 for scenarios without a client count."""

    scenario: str
    system: str
    round: int
    clients: int
    numbers: dict[str, Any]


@dataclass(slots=True)
class Results:
    """All results of a run."""

    facts: dict[str, Any]
    cells: list[Cell] = field(default_factory=list)

    def systems(self) -> list[str]:
        """Names of the systems in the order of measurement."""
        return list(dict.fromkeys(cell.system for cell in self.cells))

    def clients(self) -> list[int]:
        """The measured client counts."""
        return sorted({cell.clients for cell in self.cells if cell.scenario == "load"})

    def of(self, scenario: str, system: str | None = None, clients: int | None = None) -> list[Cell]:
        """Return the cells of all rounds."""
        return [
            cell
            for cell in self.cells
            if cell.scenario == scenario and system in (None, cell.system) and clients in (None, cell.clients)
        ]

    def samples(self, scenario: str, system: str, name: str, clients: int | None = None) -> list[float]:
        """Return the samples of all rounds together."""
        return [value for cell in self.of(scenario, system, clients) for value in cell.numbers[name]]

    def share(self, scenario: str, system: str, name: str, share: float, clients: int | None = None) -> float:
        """Compute a percentile over all rounds."""
        return percentile(self.samples(scenario, system, name, clients), share)

    def middle(self, scenario: str, system: str, name: str, clients: int | None = None) -> float:
        """Compute the median over the rounds of a figure that exists once per round."""
        return _median(cell.numbers[name] for cell in self.of(scenario, system, clients))

    def pairs(self, scenario: str, system: str, name: str, clients: int | None = None) -> list[tuple[float, float]]:
        """Return (this system, raw) of each round: the figure, or the median of its samples."""
        return [
            (_figure(cell.numbers[name]), _figure(other.numbers[name]))
            for cell in self.of(scenario, system, clients)
            for other in self.of(scenario, RAW, clients)
            if (cell.round, cell.clients) == (other.round, other.clients)
        ]

    def ratio(self, scenario: str, system: str, name: str, clients: int | None = None) -> float:
        """Compute the median over the rounds of this system's figure divided by raw's in the same round."""
        return _median(ours / raw for ours, raw in self.pairs(scenario, system, name, clients) if raw)

    def over_raw(self, scenario: str, system: str, name: str, clients: int | None = None) -> float:
        """Compute the median over the rounds of this system's figure minus raw's in the same round."""
        return _median(ours - raw for ours, raw in self.pairs(scenario, system, name, clients))

    def compact(self) -> dict[str, Any]:
        """Return the results for JSON, with samples reduced to counts and percentiles."""
        return {
            "facts": self.facts,
            "cells": [
                {
                    "scenario": cell.scenario,
                    "system": cell.system,
                    "round": cell.round,
                    "clients": cell.clients,
                    "numbers": {name: _compact(value) for name, value in cell.numbers.items()},
                }
                for cell in self.cells
            ],
        }


def _compact(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(each, int | float) for each in value):
        return value
    shares = {f"p{100 * share:g}": percentile(value, share) for share in (0.5, 0.95, 0.99, 1.0)} if value else {}
    return {"count": len(value), **shares}


def _figure(value: Any) -> float:
    return percentile(value, 0.5) if isinstance(value, list) else float(value)


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan

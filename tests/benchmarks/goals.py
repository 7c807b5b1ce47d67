"""Limits for the cost of serving on two cores with the tiny model, and whether a run keeps them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.benchmarks.figures import OPENAI, RAW, VLLM, VLLM_DEFAULTS, Results, percentile

CPU_GOALS_US = {"yap-daphne": 60.0, "yap-uvicorn": 35.0}


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal. `found` and `limit` are formatted for reading; `met` is None if the value was not measured."""

    system: str
    what: str
    limit: str
    found: str
    met: bool | None


def goals(results: Results) -> list[Goal]:
    """Return every goal of each Yap system in the results."""
    found = [goal for system in results.systems() if system.startswith("yap") for goal in _of(results, system)]
    found += [goal for system in results.systems() if system.startswith(OPENAI) for goal in _of_openai(results, system)]
    return [goal for goal in found if goal.met is not None]


def said_and_cached(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Compare cached tokens with repeated tokens in the long conversation.

    Returns:
        (share of all turns but the first, share of the worst turn).
    """
    later = rows[1:]
    whole = sum(row["cached"] for row in later) / max(1, sum(row["said"] for row in later))
    return whole, min((row["cached"] / row["said"] for row in later), default=math.nan)


def _most(system: str, what: str, value: float, limit: float, unit: str, digits: int = 2) -> Goal:
    known = None if math.isnan(value) else value <= limit
    return Goal(system, what, f"≤ {limit:g} {unit}".rstrip(), f"{value:.{digits}f} {unit}".rstrip(), known)


def _against(system: str, what: str, ours: float, theirs: float, scale: float, unit: str) -> Goal:
    known = None if math.isnan(ours) or math.isnan(theirs) else ours < theirs
    return Goal(system, what, f"< {theirs * scale:.2f} {unit} ({VLLM})", f"{ours * scale:.2f} {unit}", known)


def _of_openai(results: Results, system: str) -> Iterator[Goal]:
    over = results.share("first_token", system, "ttft", 0.5) - results.share("first_token", RAW, "ttft", 0.5)
    yield _most(system, "first token over raw, one client, p50", over * 1000, 1.5, "ms")
    for clients in results.clients():
        ours, theirs = (results.share("load", name, "ttft", 0.5, clients) for name in (system, VLLM))
        yield _against(system, f"first token p50, {clients} clients", ours, theirs, 1000, "ms")
        ours, theirs = (results.middle("load", name, "cpu_us_per_frame", clients) for name in (system, VLLM))
        yield _against(system, f"processor time per chunk, {clients} clients", ours, theirs, 1, "µs")


def _of(results: Results, system: str) -> Iterator[Goal]:
    most, against = partial(_most, system), partial(_against, system)

    def least(what: str, value: float, limit: float) -> Goal:
        return Goal(system, what, f"≥ {limit:g}", f"{value:.3f}", None if math.isnan(value) else value >= limit)

    share, top = results.share, max(results.clients(), default=0)
    over50, over99 = (
        share("first_token", system, "ttft", q) - share("first_token", RAW, "ttft", q) for q in (0.5, 0.99)
    )
    yield most("first token over raw, one client, p50", over50 * 1000, 1.0, "ms")
    yield most("first token over raw, one client, p99", over99 * 1000, 5.0, "ms")
    for clients in results.clients():
        ours, theirs = (share("load", name, "ttft", 0.5, clients) for name in (system, VLLM))
        yield against(f"first token p50, {clients} clients", ours, theirs, 1000, "ms")
    cost = results.over_raw("load", system, "cpu_us_per_frame", top)
    yield most(f"processor time per frame over raw, {top} clients", cost, CPU_GOALS_US.get(system, 60.0), "µs", 1)
    ours, theirs = (results.middle("load", name, "cpu_us_per_frame", top) for name in (system, VLLM))
    yield against(f"processor time per frame, {top} clients", ours, theirs, 1, "µs")
    yield least(
        f"tokens a second over raw's, {top} clients", results.ratio("load", system, "tokens_per_second", top), 0.95
    )
    for other in (VLLM, VLLM_DEFAULTS):
        ours, theirs = (results.middle("load", name, "tokens_per_second", top) for name in (system, other))
        yield least(f"tokens a second over {other}'s, {top} clients", ours / theirs if theirs else math.nan, 1.3)
    yield most("cancel → done, p50", share("first_token", system, "cancel_done", 0.5) * 1000, 2.0, "ms")
    for cell in results.of("late_frames", system):
        yield most("frames after a turn's end", cell.numbers["late_frames"], 0, "", 0)
    freed = share("slot", system, "freed_steps", 0.5) - share("slot", RAW, "freed_steps", 0.5)
    yield most("cancel → slot over raw, p50", freed, 1, "engine steps", 1)
    for cell in results.of("conversation", system):
        whole, _ = said_and_cached(cell.numbers["rows"])
        yield least("cached of what was already said, long conversation", whole, 0.97)
    for cell in results.of("weight", system):
        yield most("memory of an idle connection", cell.numbers["memory_per_connection"] / 1024, 60, "KiB", 1)
    for cell in results.of("idle", system):
        quiet, beside = (percentile(cell.numbers[name], 0.99) for name in ("quiet_gap", "beside_gap"))
        ratio = beside / quiet if quiet else math.nan
        yield most("p99 gap beside idle connections over the quiet one", ratio, 1.10, "×")
    for cell in results.of("storm", system):
        yield most("handshake in a storm, slowest", max(cell.numbers["answered"], default=math.nan), 1.0, "s")
        quiet, stormy = (percentile(cell.numbers[name], 0.99) for name in ("quiet_gap", "storm_gap"))
        yield most("p99 gap in a storm over the quiet one", stormy / quiet if quiet else math.nan, 3.0, "×")

"""Pictures of the results; each one has its own explanation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import CHAT, RAW, RESPONSES, VLLM, VLLM_DEFAULTS, Results, percentile

_COLOURS = {
    RAW: "#555555",
    "yap-daphne": "#1f77b4",
    "yap-uvicorn": "#17a2a2",
    f"{CHAT}daphne": "#4b3fa7",
    f"{CHAT}uvicorn": "#a06cd5",
    f"{RESPONSES}daphne": "#2e7d32",
    f"{RESPONSES}uvicorn": "#8bc34a",
    VLLM: "#d95f02",
    VLLM_DEFAULTS: "#e7b58a",
}
_SIZE = (8.0, 4.6)


def draw(results: Results, out: Path) -> list[Path]:
    """Write PNG files; returns them in reading order."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    made: list[Path] = []
    for name, scenario, paint in (
        ("first_token", "first_token", _first_token),
        (
            "first_token_by_clients",
            "load",
            _by_clients("ttft", "First token under load", "ms, median and p99 (faint)", 1000),
        ),
        (
            "gap_by_clients",
            "load",
            _by_clients("gap", "Gap between frames under load", "ms, median and p99 (faint)", 1000),
        ),
        ("tokens_per_second", "load", _rates("tokens_per_second", "Tokens a second, all clients together", "tokens/s")),
        ("processor_time", "load", _rates("cpu_us_per_frame", "Processor time of the serving process per frame", "µs")),
        ("conversation", "conversation", _conversation),
        ("storm", "storm", _storm),
    ):
        figure, axes = pyplot.subplots(figsize=_SIZE, constrained_layout=True)
        if results.of(scenario):
            paint(results, axes)
            made.append(out / f"{name}.png")
            figure.savefig(made[-1], dpi=120)
        pyplot.close(figure)
    return made


def _first_token(results: Results, axes: Any) -> None:
    for system in results.systems():
        times = sorted(1000 * value for value in results.samples("first_token", system, "ttft"))
        axes.plot(times, [100 * (n + 1) / len(times) for n in range(len(times))], color=_COLOURS[system], label=system)
    _label(
        axes, results, "First token, one client on an idle server", "ms from request to first text", "% of turns faster"
    )
    slow = [results.share("first_token", system, "ttft", 0.97) for system in results.systems()]
    axes.set_xlim(left=0, right=1500 * max(slow))


def _by_clients(name: str, title: str, unit: str, scale: float) -> Callable[[Results, Any], None]:
    def paint(results: Results, axes: Any) -> None:
        counts = results.clients()
        for system in results.systems():
            for share, alpha in ((0.5, 1.0), (0.99, 0.35)):
                values = [scale * results.share("load", system, name, share, count) for count in counts]
                label = system if share == 0.5 else None
                axes.plot(counts, values, marker="o", color=_COLOURS[system], alpha=alpha, label=label)
        axes.set_yscale("log")
        _clients(axes, counts)
        _label(axes, results, title, "clients that talk without a pause", unit)

    return paint


def _rates(name: str, title: str, unit: str) -> Callable[[Results, Any], None]:
    def paint(results: Results, axes: Any) -> None:
        counts = results.clients()
        for system in results.systems():
            values = [results.middle("load", system, name, count) for count in counts]
            axes.plot(counts, values, marker="o", color=_COLOURS[system], label=system)
        axes.set_ylim(bottom=0)
        _clients(axes, counts)
        _label(axes, results, title, "clients that talk without a pause", f"{unit}, median of the rounds")

    return paint


def _conversation(results: Results, axes: Any) -> None:
    for system in results.systems():
        for cell in results.of("conversation", system):
            rows = cell.numbers["rows"]
            turns = range(1, len(rows) + 1)
            axes.plot(turns, [row["said"] for row in rows], color=_COLOURS[system], alpha=0.35, linestyle="--")
            axes.plot(turns, [row["cached"] for row in rows], color=_COLOURS[system], label=system)
    title = "A long conversation: tokens already said (dashed), of them from the cache (solid)"
    _label(axes, results, title, "turn; where the dashed line falls the record was trimmed", "tokens")


def _storm(results: Results, axes: Any) -> None:
    bars = [
        (system, "quiet" if name == "quiet_gap" else "storm", 1000 * percentile(cell.numbers[name], 0.99))
        for system in results.systems()
        for cell in results.of("storm", system)
        for name in ("quiet_gap", "storm_gap")
    ]
    for place, (system, when, value) in enumerate(bars):
        axes.bar(place, value, color=_COLOURS[system], alpha=0.45 if when == "quiet" else 1.0)
    axes.set_xticks(range(len(bars)), [f"{system}\n{when}" for system, when, _ in bars])
    handshakes = results.facts["plan"]["storm_handshakes"]
    axes.set_title(
        f"Streams while {handshakes} clients connect within a second · {results.facts['model']}", fontsize=10
    )
    axes.set_ylabel("p99 gap between frames, ms")


def _clients(axes: Any, counts: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])


def _label(axes: Any, results: Results, title: str, x: str, y: str) -> None:
    axes.set_title(f"{title} · {results.facts['model']}", fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9)

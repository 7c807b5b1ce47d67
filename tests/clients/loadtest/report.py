"""Figures of a load test for a person, alone or compared with another test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from console import output
from yapclient import Unreadable

from loadtest.summary import FORMAT, METRICS, PERCENTILES


def show(summary: dict[str, Any], settings: dict[str, Any]) -> None:
    """Print the figures of one test."""
    head = ["milliseconds", *(f"p{share}" for share in PERCENTILES), "max", "count"]
    rows = [
        [name, *(_number(times[f"p{share}"]) for share in PERCENTILES), _number(times["max"]), str(times["count"])]
        for key, name in METRICS.items()
        if (times := summary["times"].get(key))
    ]
    if rows:
        output.table(title(settings), head, rows)
    else:
        print(title(settings))
    turns = summary["turns"]
    counts = [f"{turns['ok']} turns answered"]
    counts += [f"{turns['interrupted']} interrupted"] if turns["interrupted"] else []
    print(f"\n{', '.join(counts)} in {summary['wall_s']:.1f} s: {summary['turns_per_s']:.2f} turns and "
          f"{summary['tokens_per_s']:.1f} {summary['tokens_are']} per second")  # fmt: skip
    for kind in ("refusals", "errors"):
        for code, count in sorted(summary[kind].items()):
            print(f"{kind}: {count} × {code}")


def save(path: Path, result: dict[str, Any]) -> None:
    """Write a result file."""
    path.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")


def load(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        Unreadable: the file is missing or not a result file.
    """
    try:
        result = orjson.loads(path.read_bytes())
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror or error}") from None
    except orjson.JSONDecodeError:
        result = None
    if not isinstance(result, dict) or result.get("format") != FORMAT or "summary" not in result:
        raise Unreadable(f"{path} is not a result file of this bench (bench.py --json writes one)")
    return result


def compare(one: Path, other: Path) -> None:
    """Print two result files side by side; the change is from the first to the second."""
    results = [load(path) for path in (one, other)]
    summaries = [result["summary"] for result in results]
    rows = []
    for key, name in METRICS.items():
        times = [summary["times"].get(key) for summary in summaries]
        if times[0] and times[1]:
            shares = ("p50", "p95")
            rows += [[f"{name}, {share} (ms)", *_beside(times[0][share], times[1][share])] for share in shares]
    for key, name in (("tokens_per_s", "tokens per second"), ("turns_per_s", "turns per second")):
        rows.append([name, *_beside(summaries[0][key], summaries[1][key])])
    for kind in ("refused", "error"):
        counts = [summary["turns"][kind] for summary in summaries]
        rows.append([f"turns with {kind}" if kind == "error" else "refused", str(counts[0]), str(counts[1]), ""])
    for path, result in zip((one, other), results, strict=True):
        print(f"{path.name}: {title(result['settings'])}, {result.get('started', '')}")
    output.table("", ["", one.stem, other.stem, "change"], rows)


def title(settings: dict[str, Any]) -> str:
    """Describe the test in one line."""
    loop = f"{settings['rate']:g} arrivals per second" if settings.get("rate") else "closed loop"
    most = f", {settings['at_once']} at once" if settings.get("at_once") else ""
    return f"{settings['sessions']} sessions of {settings['turns']} turns, {loop}{most}, at {settings['server']}"


def _beside(before: float, after: float) -> list[str]:
    change = f"{(after - before) / before:+.0%}" if before else "–"
    return [_number(before), _number(after), change]


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"

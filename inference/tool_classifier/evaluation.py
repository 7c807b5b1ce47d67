"""Measure tool decisions against labelled lines: figures, confusion, times, calibration, worst mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from inference.tool_classifier.examples import Example

BINS = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """One decided line.

    Attributes:
        example: the labelled line.
        tool: the tool that was chosen, empty for none.
        score: probability of yes, None where the decision has none.
        milliseconds: time of the decision.
    """

    example: Example
    tool: str
    score: float | None
    milliseconds: float

    @property
    def right(self) -> bool:
        """Whether the chosen tool is the wanted one."""
        return self.tool == self.example.tool


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a run, shares from 0 to 1. ``recall`` and ``false_alarms`` are None where no line counts."""

    lines: int
    accuracy: float
    recall: float | None
    false_alarms: float | None
    yes_p50: float | None
    yes_p99: float | None
    no_p50: float | None
    no_p99: float | None
    p50: float
    p95: float
    p99: float


def summarize(outcomes: Sequence[Outcome]) -> Summary:
    """The figures of a run; ``outcomes`` must not be empty. Times are milliseconds."""
    wanted = [o for o in outcomes if o.example.tool]
    unwanted = [o for o in outcomes if not o.example.tool]
    times = [o.milliseconds for o in outcomes]
    yes = [o.milliseconds for o in outcomes if o.tool]
    no = [o.milliseconds for o in outcomes if not o.tool]
    return Summary(
        lines=len(outcomes),
        accuracy=sum(o.right for o in outcomes) / len(outcomes),
        recall=sum(o.right for o in wanted) / len(wanted) if wanted else None,
        false_alarms=sum(bool(o.tool) for o in unwanted) / len(unwanted) if unwanted else None,
        yes_p50=percentile(yes, 50) if yes else None,
        yes_p99=percentile(yes, 99) if yes else None,
        no_p50=percentile(no, 50) if no else None,
        no_p99=percentile(no, 99) if no else None,
        p50=percentile(times, 50),
        p95=percentile(times, 95),
        p99=percentile(times, 99),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; ``share`` from 0 to 100."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * int(share) // 100) - 1))]


def confusion(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], int]:
    """How often each (wanted tool, chosen tool) occurred; the empty name is none."""
    return dict(Counter((o.example.tool, o.tool) for o in outcomes))


def calibration(outcomes: Sequence[Outcome]) -> list[tuple[float, float, int]]:
    """(mean score, share of lines that want a tool, lines) of each tenth of the scores that holds lines."""
    rows = []
    scored = [o for o in outcomes if o.score is not None]
    for number in range(BINS):
        inside = [o for o in scored if number == min(BINS - 1, int((o.score or 0.0) * BINS))]
        if inside:
            mean = sum(o.score or 0.0 for o in inside) / len(inside)
            rows.append((mean, sum(bool(o.example.tool) for o in inside) / len(inside), len(inside)))
    return rows


def worst_mistakes(outcomes: Sequence[Outcome], count: int = 15) -> list[Outcome]:
    """The wrong decisions, the surest first."""

    def distance(outcome: Outcome) -> float:
        score = float(bool(outcome.tool)) if outcome.score is None else outcome.score
        return abs(score - float(bool(outcome.example.tool)))

    return sorted((o for o in outcomes if not o.right), key=distance, reverse=True)[:count]


def report(outcomes: Sequence[Outcome], mistakes: int = 15) -> str:
    """The whole run as text for a terminal."""
    figures = summarize(outcomes)
    lines = [
        f"lines          {figures.lines}",
        f"accuracy       {figures.accuracy:.3f}",
        f"recall         {_share(figures.recall)}",
        f"false alarms   {_share(figures.false_alarms)}",
        f"time           p50 {figures.p50:.3f} ms, p95 {figures.p95:.3f} ms, p99 {figures.p99:.3f} ms",
        f"time of yes    {_times(figures.yes_p50, figures.yes_p99)}",
        f"time of no     {_times(figures.no_p50, figures.no_p99)}",
        "",
        *_confusion_table(outcomes),
    ]
    curve = calibration(outcomes)
    if curve:
        lines += ["", "calibration    score  wanted  lines"]
        lines += [f"               {score:5.2f}  {share:6.2f}  {count:5d}" for score, share, count in curve]
    wrong = worst_mistakes(outcomes, mistakes)
    if wrong:
        lines += ["", "worst mistakes  wanted → chosen (score) text"]
        lines += [
            f"  {o.example.tool or 'none'} → {o.tool or 'none'} ({'–' if o.score is None else f'{o.score:.2f}'}) "
            f"{' / '.join([*o.example.earlier[-2:], o.example.text])[:160]}"
            for o in wrong
        ]
    return "\n".join(lines)


def _confusion_table(outcomes: Sequence[Outcome]) -> list[str]:
    counts = confusion(outcomes)
    names = sorted({name for pair in counts for name in pair})
    width = max(6, *(len(name or "none") for name in names))
    rows = [f"{'wanted':<{width}}  " + "  ".join(f"{name or 'none':>{width}}" for name in names) + "  (chosen)"]
    for wanted in names:
        cells = "  ".join(f"{counts.get((wanted, chosen), 0):>{width}}" for chosen in names)
        rows.append(f"{wanted or 'none':<{width}}  {cells}")
    return rows


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _times(p50: float | None, p99: float | None) -> str:
    return "–" if p50 is None or p99 is None else f"p50 {p50:.3f} ms, p99 {p99:.3f} ms"

"""Reads of usage: series and rankings for the dashboard and for the keys' own report."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from django.db.models import F, QuerySet, Sum
from django.db.models.functions import TruncDay, TruncHour, TruncMinute

from accounts.histogram import add, percentile
from accounts.models import Usage
from accounts.usage import COUNTERS, UsageSum

_STEPS: dict[str, tuple[type[TruncMinute] | type[TruncHour] | type[TruncDay], timedelta]] = {
    "minute": (TruncMinute, timedelta(minutes=1)),
    "hour": (TruncHour, timedelta(hours=1)),
    "day": (TruncDay, timedelta(days=1)),
}
Step = Literal["minute", "hour", "day"]


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """Usage of one step of time (``start`` in UTC), or of one key or persona (``name``)."""

    start: datetime | None
    name: str
    sums: UsageSum

    @property
    def errors(self) -> int:
        """Errors of any code."""
        return self.sums.errors.total()

    @property
    def ttft_p50_ms(self) -> float | None:
        """Median time to first token; None without turns."""
        return percentile(self.sums.ttft, 0.5)

    @property
    def ttft_p95_ms(self) -> float | None:
        """95th percentile of the time to first token; None without turns."""
        return percentile(self.sums.ttft, 0.95)


def series(now: datetime, step: Step, points: int, key_prefix: str | None = None) -> list[UsagePoint]:
    """Return the last ``points`` steps of time, the running one included, oldest first and without gaps.

    Args:
        now: Aware; any time zone.
        step: Width of a step.
        points: Number of steps.
        key_prefix: Of one key; None: of all keys together.
    """
    trunc, width = _STEPS[step]
    last = now.astimezone(UTC).replace(second=0, microsecond=0)
    if step != "minute":
        last = last.replace(minute=0)
    if step == "day":
        last = last.replace(hour=0)
    starts = [last - width * back for back in range(points - 1, -1, -1)]
    rows = _rows(starts[0], key_prefix).annotate(start=trunc("bucket", tzinfo=UTC))
    found = _grouped(rows, "start")
    return [UsagePoint(start, "", found.get(start, UsageSum())) for start in starts]


def last_hour(now: datetime, key_prefix: str | None = None) -> list[UsagePoint]:
    """Return sixty points of a minute."""
    return series(now, "minute", 60, key_prefix)


def last_day(now: datetime, key_prefix: str | None = None) -> list[UsagePoint]:
    """Return twenty-four points of an hour."""
    return series(now, "hour", 24, key_prefix)


def ranking(by: Literal["key_prefix", "persona"], since: datetime) -> list[UsagePoint]:
    """Return keys (by prefix) or personas (by slug; empty: the client's own prompt), those with most turns first."""
    rows = _rows(since, None)
    found = _grouped(rows, by)
    order = sorted(found.items(), key=lambda item: (-item[1].counts["turns"], item[0]))
    return [UsagePoint(None, name, sums) for name, sums in order]


def _rows(since: datetime, key_prefix: str | None) -> QuerySet[Usage]:
    rows = Usage.objects.filter(bucket__gte=since).order_by()
    return rows if key_prefix is None else rows.filter(key_prefix=key_prefix)


def _grouped(rows: QuerySet[Any], group: str) -> dict[Any, UsageSum]:
    """The database adds the numbers; only errors and histograms are added here."""
    found: dict[Hashable, UsageSum] = {}
    for line in rows.values(group).annotate(**{f"n_{name}": Sum(F(name)) for name in COUNTERS}):
        sums = found[line[group]] = UsageSum()
        sums.counts.update({name: line[f"n_{name}"] for name in COUNTERS})
    for name, errors, ttft in _details(rows, group):
        sums = found[name]
        sums.errors.update(errors)
        sums.ttft = add(sums.ttft, ttft)
    return found


def _details(rows: QuerySet[Any], group: str) -> Iterator[tuple[Any, dict[str, int], list[int]]]:
    return rows.exclude(errors={}, ttft=[]).values_list(group, "errors", "ttft").iterator()

"""The dashboard's totals, series and rankings of past usage, and the first steps on a server without usage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from accounts.keys import ENV_PREFIX, TRY_PREFIX
from accounts.models import ApiKey, Usage
from accounts.usage import UsageSum
from accounts.usage_reports import UsagePoint, last_day, last_hour, ranking
from personas.models import Persona
from yapserver.dashboard_charts import ChartData, chart_data

SHOWN_IN_RANKING = 8
HOUR_EVERY_S, DAY_EVERY_S = 3, 15  # seconds; these reads compete with turns for the processor
_NOT_KEYS = {ENV_PREFIX: "TEXT_API_KEY", TRY_PREFIX: "Try it"}


@dataclass(frozen=True, slots=True)
class Ranked:
    """One line of a ranking over the last day."""

    name: str
    url: str | None
    turns: int
    tokens: int
    ttft_p50_ms: float | None
    share: float
    """Turns in per cent of the first line's."""


@dataclass(frozen=True, slots=True)
class Step:
    """One suggested action on a new server."""

    title: str
    text: str
    url: str


@dataclass(frozen=True, slots=True)
class Recent:
    """Totals of the last hour and day, and Chart.js data by the chart's name."""

    totals: dict[str, UsagePoint]
    charts: dict[str, dict[str, ChartData]]


def recent(now: datetime) -> Recent:
    """Return recent usage. All operators share the reads: one each ``HOUR_EVERY_S`` and ``DAY_EVERY_S``."""
    hour, day = _hour(int(now.timestamp() // HOUR_EVERY_S)), _day(int(now.timestamp() // DAY_EVERY_S))
    return Recent(
        totals={"hour": _sum(hour), "day": _sum(day)},
        charts={"hour": chart_data(hour, 60.0, "%H:%M"), "day": chart_data(day, 3600.0, "%H:00")},
    )


@lru_cache(maxsize=1)
def _hour(_tick: int) -> list[UsagePoint]:
    return last_hour(timezone.now())


@lru_cache(maxsize=1)
def _day(_tick: int) -> list[UsagePoint]:
    return last_day(timezone.now())


@lru_cache(maxsize=2)
def _ranking(by: Literal["key_prefix", "persona"], _tick: int) -> list[UsagePoint]:
    points = ranking(by, timezone.now() - timedelta(days=1))
    return [point for point in points if point.sums.counts["turns"]][:SHOWN_IN_RANKING]


def forget() -> None:
    """Clear the caches (for tests)."""
    for read in (_hour, _day, _ranking):
        read.cache_clear()


def _sum(points: list[UsagePoint]) -> UsagePoint:
    sums = UsageSum()
    for point in points:
        sums.add(point.sums)
    return UsagePoint(None, "", sums)


def rankings(request: HttpRequest, now: datetime) -> dict[str, list[Ranked]]:
    """Rank keys and personas by their turns of the last day, as far as this operator may see them."""
    tick, found = int(now.timestamp() // DAY_EVERY_S), {}
    may = request.user.has_perm
    if may("accounts.view_usage") and may("accounts.view_apikey"):
        points = _ranking("key_prefix", tick)
        keys = {key.prefix: key for key in ApiKey.objects.filter(prefix__in=[point.name for point in points])}
        urls = {prefix: reverse("admin:accounts_apikey_change", args=[key.pk]) for prefix, key in keys.items()}
        names = {**_NOT_KEYS, **{prefix: key.name for prefix, key in keys.items()}}
        found["keys"] = _ranked(points, names, urls)
    if may("accounts.view_usage") and may("personas.view_persona"):
        points = _ranking("persona", tick)
        rows = {row.slug: row for row in Persona.objects.filter(slug__in=[point.name for point in points])}
        urls = {slug: reverse("admin:personas_persona_change", args=[row.pk]) for slug, row in rows.items()}
        names = {"": "the client's own prompt", **{slug: row.name for slug, row in rows.items()}}
        found["personas"] = _ranked(points, names, urls)
    return found


def _ranked(points: list[UsagePoint], names: dict[str, str], urls: dict[str, str]) -> list[Ranked]:
    most = max((point.sums.counts["turns"] for point in points), default=1)
    return [
        Ranked(
            name=names.get(point.name, point.name),
            url=urls.get(point.name),
            turns=point.sums.counts["turns"],
            tokens=point.sums.total_tokens,
            ttft_p50_ms=point.ttft_p50_ms,
            share=round(100 * point.sums.counts["turns"] / most, 1),
        )
        for point in points
    ]


def first_steps(request: HttpRequest) -> list[Step]:
    """List the first steps that this operator may take and that have not been taken yet."""
    may = request.user.has_perm
    steps = []
    if may("accounts.add_apikey") and not ApiKey.objects.exists():
        text = "Every client of this server needs a key. The key is shown once, on creation."
        steps.append(Step("Make a key", text, reverse("admin:accounts_apikey_add")))
    if may("personas.add_persona") and not Persona.objects.exists():
        text = "A persona is a character that clients name by its slug: its prompt, sampling and banned phrases."
        steps.append(Step("Write a persona", text, reverse("admin:personas_persona_add")))
    elif may("personas.view_persona") and not Usage.objects.exists():
        persona = Persona.objects.filter(enabled=True).order_by("slug").first()
        if persona is not None:
            text = "There has been no turn on this server yet. Talk to the persona here, in the browser."
            url = reverse("admin:personas_persona_try", args=[persona.pk])
            steps.append(Step(f"Try {persona.name}", text, url))
    return steps

"""The admin's front page: live status, totals and charts of the last hour and day, first steps on a new server.

The page is rendered once; its script then requests :func:`live` every few seconds.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from yapserver.dashboard_charts import shown
from yapserver.dashboard_usage import first_steps, rankings, recent
from yapserver.live_status import LiveStatus, live_status

_Shown = dict[str, Any]
MAY_SEE_USAGE = "accounts.view_usage"
_SPANS = {
    name: {"type": "button", "data-span": name, "aria-pressed": str(name == "hour").lower()} for name in ("hour", "day")
}


def callback(request: HttpRequest, context: _Shown) -> _Shown:
    """Add ``dashboard`` to the context of the front page (Unfold's ``DASHBOARD_CALLBACK``)."""
    dashboard = _dashboard(request) | {"url": reverse("dashboard-live"), "spans": _SPANS}
    if dashboard["charts"]:
        dashboard["shown_charts"] = shown(dashboard["charts"]["hour"])
    return {**context, "title": "Dashboard", "dashboard": dashboard}


def _live(request: HttpRequest) -> HttpResponse:
    """Answer ``{"now": HTML, "charts": {…} or null, "counters": {process: [tokens since the start, seconds]}}``."""
    dashboard = _dashboard(request)
    answer = {
        "now": render_to_string("admin/dashboard/now.html", {"dashboard": dashboard}, request),
        **{name: dashboard[name] for name in ("charts", "counters")},
    }
    return JsonResponse(answer)


live = admin.site.admin_view(_live)


def _dashboard(request: HttpRequest) -> _Shown:
    """Collect the parts that this operator may see. All staff see engines; usage and keys need their rights."""
    now = timezone.now()
    facts: LiveStatus | None = live_status(request)
    usage = recent(now) if request.user.has_perm(MAY_SEE_USAGE) else None
    return {
        "facts": facts,
        "totals": usage.totals if usage else None,
        "charts": usage.charts if usage else None,
        "rankings": rankings(request, now),
        "steps": first_steps(request),
        "counters": facts.counters if facts else {},
    }

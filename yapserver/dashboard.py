"""The admin's front page: how the server is doing now, what it did in the last hour and day, and what to do first.

The page is rendered once; afterwards it asks :func:`live` for the same every few seconds.
"""

from __future__ import annotations

import time
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
    """Unfold's ``DASHBOARD_CALLBACK``: adds ``dashboard`` to the context of the front page."""
    dashboard = _dashboard(request) | {"url": reverse("dashboard-live"), "spans": _SPANS}
    if dashboard["charts"]:
        dashboard["shown_charts"] = shown(dashboard["charts"]["hour"])
    return {**context, "title": "Dashboard", "dashboard": dashboard}


def _live(request: HttpRequest) -> HttpResponse:
    """``{"now": HTML, "charts": {…} or null, "generated": tokens since the start or null, "at": seconds}``."""
    dashboard = _dashboard(request)
    answer = {
        "now": render_to_string("admin/dashboard/now.html", {"dashboard": dashboard}, request),
        **{name: dashboard[name] for name in ("charts", "generated", "at")},
    }
    return JsonResponse(answer)


live = admin.site.admin_view(_live)


def _dashboard(request: HttpRequest) -> _Shown:
    """All that this operator may see: engines are for all staff, usage and keys for those with the right to them."""
    now = timezone.now()
    facts: LiveStatus | None = live_status(request)
    usage = recent(now) if request.user.has_perm(MAY_SEE_USAGE) else None
    return {
        "facts": facts,
        "totals": usage.totals if usage else None,
        "charts": usage.charts if usage else None,
        "rankings": rankings(request, now),
        "steps": first_steps(request),
        "generated": facts.generated if facts else None,
        "at": time.monotonic(),
    }

"""The admin's icon and sidebar. The sidebar lists the pages that the operator may view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy


def favicon(_request: HttpRequest) -> str:
    """Return the icon's URL (Unfold's ``SITE_FAVICONS``)."""
    return static("yapserver/favicon.svg")


def navigation() -> list[dict[str, Any]]:
    """Return the sidebar (Unfold's ``SIDEBAR["navigation"]``)."""
    return [
        {"title": None, "items": [{"title": "Dashboard", "icon": "monitoring", "link": reverse_lazy("admin:index")}]},
        {
            "title": "Characters",
            "items": [
                _page("Personas", "theater_comedy", "personas", "persona"),
                _page("Phrase lists", "block", "personas", "phraselist"),
            ],
        },
        {
            "title": "Tool decision",
            "items": [
                _page("Tools", "build", "personas", "tool"),
                _page("Examples", "label", "personas", "toolexample"),
                _page("Classifier", "model_training", "personas", "toolhead"),
            ],
        },
        {
            "title": "Access",
            "items": [
                _page("API keys", "key", "accounts", "apikey"),
                _page("Usage", "bar_chart", "accounts", "usage"),
            ],
        },
        {
            "title": "Operators",
            "items": [_page("Users", "person", "auth", "user"), _page("Groups", "group", "auth", "group")],
        },
    ]


def _page(title: str, icon: str, app: str, model: str) -> dict[str, Any]:
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{model}_changelist"),
        "permission": _may_view(f"{app}.view_{model}"),
    }


def _may_view(right: str) -> Callable[[HttpRequest], bool]:
    return lambda request: request.user.has_perm(right)

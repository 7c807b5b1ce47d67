"""Usage rows, read-only: nothing can be added, changed or removed by hand."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display

from accounts.histogram import percentile
from accounts.models import Usage
from personas.searchable_admin import SearchableAdmin


@admin.register(Usage)
class UsageAdmin(SearchableAdmin):
    """One row per bucket of time, key and persona."""

    list_display = (
        "bucket",
        "period",
        "key_prefix",
        "persona",
        "turns",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "cancels",
        "barge_ins",
        "ttft_p50",
        "ttft_p95",
    )
    list_filter = ("period", "bucket")
    search_fields = ("key_prefix", "persona")
    show_full_result_count = False

    @display(description="First token p50, ms")  # type: ignore[untyped-decorator]
    def ttft_p50(self, row: Usage) -> str:
        """Median, as text."""
        return _shown(percentile(row.ttft, 0.5))

    @display(description="First token p95, ms")  # type: ignore[untyped-decorator]
    def ttft_p95(self, row: Usage) -> str:
        """95th percentile, as text."""
        return _shown(percentile(row.ttft, 0.95))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def _shown(ms: float | None) -> str:
    return "–" if ms is None else f"{ms:.0f}"

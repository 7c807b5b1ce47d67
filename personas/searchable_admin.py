"""The base of the admins with a search: a search has a length, because each word becomes a condition of the query."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin

MAX_SEARCH_CHARS = 200


class SearchableAdmin(ModelAdmin):
    """Rows that are found by the first :data:`MAX_SEARCH_CHARS` characters of a search."""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the rows that fit, and whether they may repeat."""
        found: tuple[QuerySet[Any], bool] = super().get_search_results(
            request, queryset, search_term[:MAX_SEARCH_CHARS]
        )
        return found

"""The base of the admins with a search: a search has a length, because each word becomes a condition of the query.

Fields that search rows of another admin refuse a posted value that is no key as a form error.
"""

from __future__ import annotations

from typing import Any

from django.db.models import ForeignKey, ManyToManyField, QuerySet
from django.forms import ModelChoiceField, ModelMultipleChoiceField
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from personas.autocomplete_widgets import OneRow, SeveralRows

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

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField[Any] | None:
        """Return the field of one row."""
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs.setdefault("widget", OneRow(db_field, self.admin_site, using=kwargs.get("using")))
        field: ModelChoiceField[Any] | None = super().formfield_for_foreignkey(db_field, request, **kwargs)
        return field

    def formfield_for_manytomany(
        self, db_field: ManyToManyField[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelMultipleChoiceField[Any] | None:
        """Return the field of any number of rows."""
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs.setdefault("widget", SeveralRows(db_field, self.admin_site, using=kwargs.get("using")))
        field: ModelMultipleChoiceField[Any] | None = super().formfield_for_manytomany(db_field, request, **kwargs)
        return field

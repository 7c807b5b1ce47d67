"""The base of the admins of personas and phrase lists: versions, announced changes, pages and downloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.decorators import action

from personas.searchable_admin import SearchableAdmin

Function = TypeVar("Function", bound=Callable[..., Any])


class VersionedAdmin(SearchableAdmin):
    """Rows with a version that grows by one with every saved change, announced once everything is stored."""

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            obj.version = F("version")  # another save may have raised it since this form was opened
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if not change or form.has_changed() or any(formset.has_changed() for formset in formsets):
            self.changed(form.instance, added=not change)
        else:
            form.instance.refresh_from_db(fields=["version"])

    def changed(self, obj: Any, added: bool) -> None:
        """Called after a saved change: raises versions and announces the change."""
        raise NotImplementedError

    def switch(self, request: HttpRequest, set_enabled: Any, queryset: QuerySet[Any], enabled: bool) -> None:
        """Enable or disable the selected rows: all or none, each with a log entry."""
        try:
            changed = set_enabled(queryset, enabled)
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
            return
        word = "Enabled" if enabled else "Disabled"
        for obj in changed:
            self.log_change(request, obj, f"{word}.")
        self.message_user(request, f"{word}: {len(changed)}.", messages.SUCCESS)

    def page(self, request: HttpRequest, title: str, template: str, **context: Any) -> TemplateResponse:
        """Return a page of this model in the admin's frame."""
        frame = {**self.admin_site.each_context(request), "opts": self.opts, "title": title}
        return TemplateResponse(request, f"admin/personas/{template}.html", frame | context)

    def upload(self, request: HttpRequest, form_class: type[forms.Form]) -> forms.Form:
        """Return the form of an import page: bound for a POST, else empty."""
        return form_class(request.POST, request.FILES) if request.method == "POST" else form_class()

    def one(self, request: HttpRequest, object_id: str) -> Any:
        """Return the row. Raises ``PermissionDenied`` without the right to view the row, and for a missing row."""
        obj = self.get_object(request, object_id)
        if obj is None or not self.has_view_permission(request, obj):
            raise PermissionDenied
        return obj


def button(description: str, permission: str, url_path: str, icon: str | None = None) -> Callable[[Function], Function]:
    """Decorate a view as a button above a list or a form."""
    made = action(description=description, permissions=[permission], url_path=url_path, icon=icon)
    return cast(Callable[[Function], Function], made)


def download(body: bytes, name: str, kind: str) -> HttpResponse:
    """Return a file that browsers save."""
    return HttpResponse(body, content_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})

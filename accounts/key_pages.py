"""The pages behind the key list's actions: confirm a revocation, rotate, show new secrets once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse

from accounts.key_form import RotateForm
from accounts.models import ApiKey
from accounts.services import revoke_key, rotate_key


class KeyPages(admin.ModelAdmin):  # type: ignore[type-arg]
    """The part of the key admin that revokes and rotates."""

    def revoke_rows(self, request: HttpRequest, rows: Sequence[ApiKey]) -> HttpResponse:
        """Revoke keys once the operator has confirmed it; before that, answer with the confirmation page."""
        rows = [row for row in rows if row.revoked_at is None]
        if rows and "confirmed" not in request.POST:
            return self._ask(request, "Revoke keys", "revoke_selected", rows, None)
        done = [row for row in rows if revoke_key(row)]
        for row in done:
            self.log_change(request, row, "Revoked.")
        level = messages.SUCCESS if done else messages.WARNING
        self.message_user(request, f"{len(done)} revoked." if done else "Already revoked.", level)
        return redirect(self._list_url())

    def rotate_rows(self, request: HttpRequest, rows: Sequence[ApiKey]) -> HttpResponse:
        """Rotate keys once the form is complete and valid, and show the new secrets; before that, show the form."""
        rows = [row for row in rows if row.revoked_at is None]
        if not rows:
            self.message_user(request, "A revoked key cannot be rotated.", messages.WARNING)
            return redirect(self._list_url())
        form = RotateForm(request, request.POST if "confirmed" in request.POST else None)
        if not form.is_valid():
            return self._ask(request, "Rotate keys", "rotate_selected", rows, form)
        until = form.cleaned_data["old_valid_until"]
        issued = []
        for row in rows:
            issued.append((row, rotate_key(row, until)))
            self.log_change(request, row, f"Rotated; the old secret is valid until {row.previous_until or 'now'}.")
        return self.show_once(request, issued)

    def show_once(self, request: HttpRequest, issued: Sequence[tuple[ApiKey, str]]) -> HttpResponse:
        """The page with new secrets, which no cache may keep. ``issued`` holds rows and their full keys."""
        context = {"title": "Copy it now", "issued": issued, "list_url": self._list_url()}
        response = self._page(request, "shown_once", context)
        response["Cache-Control"] = "no-store"
        return response

    def _ask(
        self, request: HttpRequest, title: str, name: str, rows: Sequence[ApiKey], form: forms.Form | None
    ) -> HttpResponse:
        context = {"title": title, "rows": rows, "form": form, "action_name": name, "list_url": self._list_url()}
        return self._page(request, "confirm", context)

    def _page(self, request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
        everything = {**self.admin_site.each_context(request), "opts": self.opts, "media": self.media, **context}
        return TemplateResponse(request, f"admin/accounts/apikey/{name}.html", everything)

    def _list_url(self) -> str:
        return reverse("admin:accounts_apikey_changelist", current_app=self.admin_site.name)

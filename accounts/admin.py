"""The operator's pages: keys, shown in full once, and what they used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from accounts import usage_admin, user_admin  # noqa: F401  # they register themselves
from accounts.key_form import ApiKeyForm, RotateForm
from accounts.login import LoginForm
from accounts.models import ApiKey
from accounts.services import issue_key, revoke_key, rotate_key, save_key

admin.site.login_form = LoginForm

_STATES = {"active": "success", "expired": "warning", "revoked": "danger"}


class StateFilter(admin.SimpleListFilter):
    """Active, expired, revoked."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state.capitalize()) for state in _STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        expired = Q(expires_at__lte=timezone.now())
        match self.value():
            case "active":
                return queryset.filter(~expired | Q(expires_at__isnull=True), revoked_at__isnull=True)
            case "expired":
                return queryset.filter(expired, revoked_at__isnull=True)
            case "revoked":
                return queryset.filter(revoked_at__isnull=False)
            case _:
                return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    """Keys are revoked, not deleted: what they did stays explained. Every change is in Django's log."""

    form = ApiKeyForm
    list_display = ("name", "prefix", "state_badge", "created_at", "last_used_at", "expires_at")
    list_filter = (StateFilter, "created_at", "last_used_at")
    search_fields = ("prefix", "name", "note")
    actions = ("revoke_selected", "rotate_selected")
    actions_detail = ("rotate", "revoke")
    readonly_fields = ("prefix", "state_badge", "created_at", "last_used_at", "revoked_at", "previous_until")
    _limits = (
        "Limits",
        {
            "description": "Changes govern the next message of live connections.",
            "fields": (
                "max_connections",
                ("max_messages", "message_window_s"),
                ("max_cancels", "cancel_window_s"),
                ("max_persona_updates", "persona_update_window_s"),
                ("tokens_per_day", "max_out"),
            ),
        },
    )
    _rights = ("Personas", {"fields": ("allowed_personas", "allow_own_chat_prompt", "allow_own_tool_prompt")})
    add_fieldsets = ((None, {"fields": ("name", "note", "expires_at")}), _limits, _rights)
    fieldsets = (
        (None, {"fields": ("name", "prefix", "state_badge", "note", "expires_at")}),
        _limits,
        _rights,
        ("History", {"fields": ("created_at", "last_used_at", "previous_until", "revoked_at")}),
    )

    @display(description="State", label=_STATES)  # type: ignore[untyped-decorator]
    def state_badge(self, row: ApiKey) -> str:
        """The badge of the list."""
        return row.state()

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return self.fieldsets if obj else self.add_fieldsets

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: ApiKey, form: forms.Form, change: bool) -> None:
        if change:
            save_key(obj)
        else:
            request.__dict__["issued"] = issue_key(obj)

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        """The key itself, in this answer and nowhere else: no cookie, session or log ever holds it."""
        return self._shown_once(request, [(obj, request.__dict__.pop("issued"))])

    @admin.action(description="Revoke selected keys", permissions=["change"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        """Asks once, then revokes."""
        return self._revoke(request, list(queryset))

    @admin.action(description="Rotate selected keys…", permissions=["change"])
    def rotate_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        """Asks how long the old secrets stay valid, then shows the new ones."""
        return self._rotate(request, list(queryset))

    @action(description="Rotate…", url_path="rotate", permissions=["change"], icon="autorenew")  # type: ignore[untyped-decorator]
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The same for one key; only its POST changes anything."""
        return self._rotate(request, self._one(request, object_id))

    @action(description="Revoke…", url_path="revoke", permissions=["change"], icon="block")  # type: ignore[untyped-decorator]
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The same for one key; only its POST changes anything."""
        return self._revoke(request, self._one(request, object_id))

    def _one(self, request: HttpRequest, object_id: str) -> list[ApiKey]:
        row = self.get_object(request, object_id)
        return [row] if row is not None else []

    def _revoke(self, request: HttpRequest, rows: Sequence[ApiKey]) -> HttpResponse:
        rows = [row for row in rows if row.revoked_at is None]
        if rows and "confirmed" not in request.POST:
            return self._ask(request, "Revoke keys", "revoke_selected", rows, None)
        done = [row for row in rows if revoke_key(row)]
        for row in done:
            self.log_change(request, row, "Revoked.")
        level = messages.SUCCESS if done else messages.WARNING
        self.message_user(request, f"{len(done)} revoked." if done else "Already revoked.", level)
        return redirect(self._list_url())

    def _rotate(self, request: HttpRequest, rows: Sequence[ApiKey]) -> HttpResponse:
        rows = [row for row in rows if row.revoked_at is None]
        if not rows:
            self.message_user(request, "A revoked key cannot be rotated.", messages.WARNING)
            return redirect(self._list_url())
        confirmed = "confirmed" in request.POST
        form = RotateForm(request.POST if confirmed else None, initial=RotateForm.tomorrow())
        if not confirmed or not form.is_valid():
            return self._ask(request, "Rotate keys", "rotate_selected", rows, form)
        until = form.cleaned_data["old_valid_until"]
        issued = []
        for row in rows:
            issued.append((row, rotate_key(row, until)))
            self.log_change(request, row, f"Rotated; the old secret is valid until {row.previous_until or 'now'}.")
        return self._shown_once(request, issued)

    def _ask(
        self, request: HttpRequest, title: str, name: str, rows: Sequence[ApiKey], form: forms.Form | None
    ) -> HttpResponse:
        context = {"title": title, "rows": rows, "form": form, "action_name": name, "list_url": self._list_url()}
        return self._page(request, "confirm", context)

    def _shown_once(self, request: HttpRequest, issued: Sequence[tuple[ApiKey, str]]) -> HttpResponse:
        context = {"title": "Copy it now", "issued": issued, "list_url": self._list_url()}
        response = self._page(request, "shown_once", context)
        response["Cache-Control"] = "no-store"
        return response

    def _page(self, request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
        everything = {**self.admin_site.each_context(request), "opts": self.opts, "media": self.media, **context}
        return TemplateResponse(request, f"admin/accounts/apikey/{name}.html", everything)

    def _list_url(self) -> str:
        return reverse("admin:accounts_apikey_changelist", current_app=self.admin_site.name)

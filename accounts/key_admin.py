"""The pages of API keys: list, form, deletion. Issued secrets are shown once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import action, display

from accounts.key_form import RIGHTS, ApiKeyForm, NewApiKeyForm
from accounts.key_pages import KeyPages
from accounts.models import ApiKey
from accounts.selectors import deletable_keys
from accounts.services import delete_keys, issue_key, save_key
from personas.searchable_admin import SearchableAdmin

_STATES = {"active": "success", "expired": "warning", "revoked": "danger"}


class StateFilter(admin.SimpleListFilter):
    """Filters keys by active, expired or revoked."""

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
class ApiKeyAdmin(KeyPages, SearchableAdmin):
    """Keys that were used are revoked, not deleted, so that their usage stays explained. Django logs every change."""

    form = ApiKeyForm
    list_display = ("name", "prefix", "state_badge", "created_at", "last_used_at", "expires_at")
    list_filter = (StateFilter, "created_at", "last_used_at")
    search_fields = ("prefix", "name", "note")
    actions = ("revoke_selected", "rotate_selected", "delete_selected")
    actions_detail = ("rotate", "revoke")
    readonly_fields = ("prefix", "state_badge", "created_at", "last_used_at", "revoked_at", "previous_until")
    _limits = (
        "Limits",
        {
            "description": "Changes apply from the next message of live connections on.",
            "fields": (
                "max_connections",
                ("max_messages", "message_window_s"),
                ("max_cancels", "cancel_window_s"),
                ("max_persona_updates", "persona_update_window_s"),
                ("tokens_per_day", "max_out"),
            ),
        },
    )
    _rights = ("Rights", {"fields": ("allowed_personas", *RIGHTS)})
    add_fieldsets: ClassVar[Any] = (
        (None, {"fields": ("name", "note", "expires_at", "own_password")}),
        _limits,
        _rights,
    )
    fieldsets: ClassVar[Any] = (
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

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is not None:
            return super().get_form(request, obj, change, **kwargs)
        form: Any = super().get_form(request, obj, change, **{**kwargs, "form": NewApiKeyForm})
        form.request = request  # the class was made for this request
        return form

    def save_model(self, request: HttpRequest, obj: ApiKey, form: forms.Form, change: bool) -> None:
        if change:
            save_key(obj)
        else:
            request.__dict__["issued"] = issue_key(obj)

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        """Show the key in this answer and nowhere else: no cookie, session or log ever holds it."""
        return self.show_once(request, [(obj, request.__dict__.pop("issued"))])

    # -- deletion ----------------------------------------------------------------------------------

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Whether this operator may delete a key (None: any), as far as its usage allows it."""
        allowed = super().has_delete_permission(request, obj)
        return allowed and (obj is None or deletable_keys().filter(pk=obj.pk).exists())

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """The confirmation page's list; keys that have to stay are named as protected."""
        to_delete, counts, missing, protected = super().get_deleted_objects(objs, request)
        deletable = set(deletable_keys().values_list("pk", flat=True))
        kept = [f"{row}: it was used, so it can be revoked only" for row in objs if row.pk not in deletable]
        if super().has_delete_permission(request):
            missing.discard(str(self.opts.verbose_name))  # these keys are kept for their usage, not for a missing right
        return to_delete, counts, missing, [*protected, *kept]

    def delete_model(self, request: HttpRequest, obj: ApiKey) -> None:
        delete_keys([obj])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        delete_keys(list(queryset))

    # -- actions: the decorators' permissions are checked by Django and Unfold -------------------------

    @admin.action(description="Revoke selected keys", permissions=["change"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        """Ask once, then revoke."""
        return self.revoke_rows(request, list(queryset))

    @admin.action(description="Rotate selected keys…", permissions=["change"])
    def rotate_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        """Ask when the old secrets end, then show the new ones."""
        return self.rotate_rows(request, list(queryset))

    @action(description="Rotate…", url_path="rotate", permissions=["change"], icon="autorenew")  # type: ignore[untyped-decorator]
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Rotate one key; only a POST changes anything."""
        return self.rotate_rows(request, self._one(request, object_id))

    @action(description="Revoke…", url_path="revoke", permissions=["change"], icon="block")  # type: ignore[untyped-decorator]
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Revoke one key; only a POST changes anything."""
        return self.revoke_rows(request, self._one(request, object_id))

    def _one(self, request: HttpRequest, object_id: str) -> Sequence[ApiKey]:
        row = self.get_object(request, object_id)
        return [row] if row is not None else []

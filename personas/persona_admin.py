"""Characters in the admin: written, switched, tried, taken in and given out as cards."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST

from personas import cards, services, tokens
from personas.models import MAX_PROMPT_CHARS, Persona
from personas.persona_forms import CardForm, PersonaForm
from personas.sampling_ranges import SAMPLING_KEYS
from personas.versioned_admin import VersionedAdmin, button, download


@admin.register(Persona)
class PersonaAdmin(VersionedAdmin):
    """Characters: written, switched, tried, taken in and given out as cards."""

    form = PersonaForm
    list_display = ("name", "slug", "gender", "personality", "output_style", "enabled", "version", "updated")
    list_filter = ("enabled", "gender", "output_style")
    search_fields = ("slug", "name", "personality")
    readonly_fields = ("version", "created", "updated")
    autocomplete_fields = ("phrase_lists",)
    warn_unsaved_form = True
    actions = ("enable", "disable")
    actions_list = ("import_card",)
    actions_detail = (
        "try_it",
        {"title": "Export card", "icon": "download", "items": ["export_png", "export_v3", "export_v2"]},
    )
    fieldsets = (
        (None, {"fields": (("name", "slug"), ("nickname", "enabled"), ("gender", "personality"))}),
        ("Prompts", {"fields": ("chat_prompt", "tool_prompt")}),
        ("Phrases", {"fields": ("phrase_lists", "label_stops")}),
        (
            "Output",
            {
                "fields": ("output_style", ("skip_actions", "skip_asides"), ("skip_ooc", "skip_code")),
                "description": "The four options apply to the speech style only.",
            },
        ),
        (
            "Sampling",
            {
                "fields": (("temperature", "top_p"), ("top_k", "min_p"), SAMPLING_KEYS[4:]),
                "description": "Empty fields follow the server's defaults; what a client asks for wins over both.",
            },
        ),
        ("History", {"fields": (("version", "created", "updated"),)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Persona]:
        personas: QuerySet[Persona] = super().get_queryset(request)
        return personas.defer("card")  # megabytes, for exports only

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, tuple[str, ...]]:
        return {} if obj else {"slug": ("name",)}

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("tokens/", wrap(require_POST(self.token_counts)), name="personas_persona_tokens"),
            path("<path:object_id>/try/", wrap(self.try_page), name="personas_persona_try"),
            *super().get_urls(),
        ]

    def changed(self, obj: Persona, added: bool) -> None:
        services.persona_changed(obj, added)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        services.delete_personas(Persona.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Persona]) -> None:
        services.delete_personas(queryset)

    @admin.action(description="Enable selected personas", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Persona]) -> None:
        self.switch(request, services.set_personas_enabled, queryset, True)

    @admin.action(description="Disable selected personas", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Persona]) -> None:
        self.switch(request, services.set_personas_enabled, queryset, False)

    def token_counts(self, request: HttpRequest) -> JsonResponse:
        """``{"loaded", "chat_prompt": {"tokens", "limit"}, "tool_prompt": …}``; null tokens: too long to be counted."""
        if not (self.has_view_permission(request) or self.has_add_permission(request)):
            raise PermissionDenied
        counter = tokens.current()
        if counter is None:
            return JsonResponse({"loaded": False})
        answer: dict[str, Any] = {"loaded": True}
        for name, count, limit in (
            ("chat_prompt", counter.count_chat, counter.chat_limit),
            ("tool_prompt", counter.count_tool, counter.tool_limit),
        ):
            text = request.POST.get(name, "").strip().replace("\r\n", "\n")
            counted = None if len(text) > MAX_PROMPT_CHARS else count(text) if text else 0
            answer[name] = {"tokens": counted, "limit": limit}
        return JsonResponse(answer)

    @button("Try it", "view", "try-it", icon="chat")
    def try_it(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return redirect("admin:personas_persona_try", object_id)

    def try_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The page that talks to the persona over the WebSocket."""
        persona = self.one(request, object_id)
        return self.page(request, f"Try {persona}", "try", persona=persona)

    @button("Import card", "add", "import-card", icon="upload")
    def import_card(self, request: HttpRequest) -> HttpResponse:
        form = self.upload(request, CardForm)
        if form.is_valid():
            given = form.cleaned_data
            try:
                persona = services.import_card(given["card"], gender=given["gender"], personality=given["personality"])
            except ValidationError as error:
                form.add_error(None, "; ".join(error.messages))
            else:
                self.log_addition(request, persona, "Imported from a character card.")
                self.message_user(request, f"{persona} was imported.", messages.SUCCESS)
                if not persona.enabled:
                    self.message_user(
                        request, "Its prompt is over the token limit: shorten it, then enable it.", messages.WARNING
                    )
                return redirect("admin:personas_persona_change", persona.pk)
        back = reverse("admin:personas_persona_changelist")
        return self.page(request, "Import a character card", "import", form=form, back=back)

    @button("PNG, V2 and V3", "view", "card-png")
    def export_png(self, request: HttpRequest, object_id: str) -> HttpResponse:
        persona = self.one(request, object_id)
        return download(cards.to_png(services.card_of(persona)), f"{persona.slug}.png", "image/png")

    @button("JSON, V3", "view", "card-v3")
    def export_v3(self, request: HttpRequest, object_id: str) -> HttpResponse:
        persona = self.one(request, object_id)
        return download(cards.to_json(services.card_of(persona), "v3"), f"{persona.slug}.v3.json", "application/json")

    @button("JSON, V2", "view", "card-v2")
    def export_v2(self, request: HttpRequest, object_id: str) -> HttpResponse:
        persona = self.one(request, object_id)
        return download(cards.to_json(services.card_of(persona), "v2"), f"{persona.slug}.v2.json", "application/json")

"""The admin of personas: edit, enable, try, import and export as character cards."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from personas import cards, services, tokens
from personas.card_prompt import unix_lines
from personas.macros import ExpansionTooLong
from personas.models import Persona, Portrait
from personas.persona_forms import CardForm, PersonaForm
from personas.sampling_ranges import SAMPLING_KEYS
from personas.tool_selectors import load_tools
from personas.tool_snapshot import tools_of
from personas.upload_form import one_line
from personas.versioned_admin import VersionedAdmin, button, download


@admin.register(Persona)
class PersonaAdmin(VersionedAdmin):
    """Personas: edited, enabled, tried out, imported and exported as character cards."""

    form = PersonaForm
    list_display = ("name", "slug", "gender", "personality", "output_style", "enabled", "version", "updated")
    list_filter = ("enabled", "gender", "output_style")
    search_fields = ("slug", "name", "personality")
    readonly_fields = ("picture", "version", "created", "updated")
    autocomplete_fields = ("phrase_lists",)
    warn_unsaved_form = True
    actions = ("enable", "disable")
    actions_list = ("import_card",)
    actions_detail = (
        "try_it",
        {"title": "Export card", "icon": "download", "items": ["export_png", "export_charx", "export_v3", "export_v2"]},
    )
    fieldsets = (
        (None, {"fields": (("name", "slug"), ("nickname", "enabled"), ("gender", "personality"))}),
        ("Prompts", {"fields": ("chat_prompt", "tool_prompt", "tool_threshold", "openai_tool_decision")}),
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
        ("Portrait", {"fields": ("picture",)}),
        ("History", {"fields": (("version", "created", "updated"),)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Persona]:
        personas: QuerySet[Persona] = super().get_queryset(request)
        return personas.defer("card")  # up to megabytes, for exports only

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, tuple[str, ...]]:
        return {} if obj else {"slug": ("name",)}

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("tokens/", wrap(require_POST(self.token_counts)), name="personas_persona_tokens"),
            path("<path:object_id>/try/", wrap(self.try_page), name="personas_persona_try"),
            path("<path:object_id>/portrait/", wrap(self.portrait), name="personas_persona_portrait"),
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
        """Answer ``{"loaded", "chat_prompt": {"tokens", "limit"}, "tool_prompt": …}``; null tokens: too long."""
        if not (self.has_view_permission(request) or self.has_add_permission(request)):
            raise PermissionDenied
        counter = tokens.current()
        if counter is None:
            return JsonResponse({"loaded": False})
        answer: dict[str, Any] = {"loaded": True}
        char = request.POST.get("nickname", "").strip() or request.POST.get("name", "")
        for name, count, limit in (
            ("chat_prompt", counter.count_chat, counter.chat_limit),
            ("tool_prompt", counter.count_tool, counter.tool_limit),
        ):
            text = unix_lines(request.POST.get(name, "")).strip()
            try:
                answer[name] = {"tokens": count(tokens.expanded(text, char)) if text else 0, "limit": limit}
            except ExpansionTooLong:
                answer[name] = {"tokens": None, "limit": limit}
        return JsonResponse(answer)

    @button("Try it", "view", "try-it", icon="chat")
    def try_it(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return redirect("admin:personas_persona_try", object_id)

    def try_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the page that talks to the persona over the WebSocket."""
        persona = self.one(request, object_id)
        teaches = request.user.has_perm("personas.add_toolexample")
        tools = [tool.name for tool in tools_of(load_tools(), persona.slug)] if teaches else []
        return self.page(request, f"Try {persona}", "try", persona=persona, tools=tools)

    def portrait(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Serve the portrait with its stored media type, never as a page."""
        portrait = Portrait.objects.filter(persona=self.one(request, object_id)).first()
        if portrait is None:
            raise Http404
        return HttpResponse(
            bytes(portrait.data),
            content_type=portrait.media_type,
            headers={"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"},
        )

    @admin.display(description="portrait")
    def picture(self, obj: Persona) -> str:
        """The portrait as an image of the form; a dash where there is none."""
        if not Portrait.objects.filter(persona=obj.pk).exists():
            return "–"
        return format_html(
            '<img src="{}" alt="Portrait of {}" class="rounded-default" style="max-height: 16rem">',
            reverse("admin:personas_persona_portrait", args=[obj.pk]),
            obj.name,
        )

    @button("Import card", "add", "import-card", icon="upload")
    def import_card(self, request: HttpRequest) -> HttpResponse:
        form = self.upload(request, CardForm)
        if form.is_valid():
            given = form.cleaned_data
            try:
                persona = services.import_card(given["card"], gender=given["gender"], personality=given["personality"])
            except ValidationError as error:
                form.add_error(None, one_line(error))
            else:
                self.log_addition(request, persona, "Imported from a character card.")
                self.message_user(request, f"{persona} was imported.", messages.SUCCESS)
                for note in given["card"].notes:
                    self.message_user(request, note, messages.WARNING)
                if not persona.enabled:
                    self.message_user(
                        request,
                        "The prompt is over the token limit: shorten the prompt, then enable the persona.",
                        messages.WARNING,
                    )
                return redirect("admin:personas_persona_change", persona.pk)
        back = reverse("admin:personas_persona_changelist")
        return self.page(request, "Import a character card", "import", form=form, back=back)

    @button("PNG, V2 and V3", "view", "card-png")
    def export_png(self, request: HttpRequest, object_id: str) -> HttpResponse:
        persona = self.one(request, object_id)
        return download(cards.to_png(services.card_of(persona)), f"{persona.slug}.png", "image/png")

    @button("CHARX, V3 with any portrait", "view", "card-charx")
    def export_charx(self, request: HttpRequest, object_id: str) -> HttpResponse:
        persona = self.one(request, object_id)
        return download(cards.to_charx(services.card_of(persona)), f"{persona.slug}.charx", "application/zip")

    @button("JSON, V3", "view", "card-v3")
    def export_v3(self, request: HttpRequest, object_id: str) -> HttpResponse:
        persona = self.one(request, object_id)
        return download(cards.to_json(services.card_of(persona), "v3"), f"{persona.slug}.v3.json", "application/json")

    @button("JSON, V2", "view", "card-v2")
    def export_v2(self, request: HttpRequest, object_id: str) -> HttpResponse:
        persona = self.one(request, object_id)
        return download(cards.to_json(services.card_of(persona), "v2"), f"{persona.slug}.v2.json", "application/json")

"""Phrase lists in the admin, also those of hundreds: paged, searched, taken in and given out."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.text import slugify
from unfold.admin import TabularInline

from personas import phrase_files, phrase_services
from personas.models import Phrase, PhraseList
from personas.phrase_forms import NewPhraseListForm, PhraseForm, PhraseFormSet, PhraseImportForm
from personas.versioned_admin import VersionedAdmin, button, download

PHRASES_A_PAGE = 100  # Django refuses forms of more than 1,000 values


class PhraseInline(TabularInline):
    """A page of a list's phrases, in the order of the alphabet."""

    model = Phrase
    form = PhraseForm
    formset = PhraseFormSet
    ordering = ("text", "pk")
    extra = 1
    per_page = PHRASES_A_PAGE
    hide_title = True


@admin.register(PhraseList)
class PhraseListAdmin(VersionedAdmin):
    """Lists of hundreds: paged, searched, taken in and given out as JSON or plain text."""

    list_display = ("name", "is_global", "enabled", "phrase_count", "persona_count", "version", "updated")
    list_filter = ("enabled", "is_global")
    search_fields = ("name", "phrases__text")
    search_help_text = "Finds lists by their name and by the phrases in them."
    readonly_fields = ("version", "created", "updated")
    fieldsets = ((None, {"fields": ("name", ("is_global", "enabled"), "note", ("version", "created", "updated"))}),)
    inlines = (PhraseInline,)
    warn_unsaved_form = True
    actions = ("enable", "disable")
    actions_list = ("import_list",)
    actions_detail = (
        "import_into",
        {"title": "Export", "icon": "download", "items": ["export_json", "export_text"]},
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[PhraseList]:
        lists: QuerySet[PhraseList] = super().get_queryset(request)
        return lists.annotate(
            phrases_held=Count("phrases", distinct=True), personas_held=Count("personas", distinct=True)
        )

    @admin.display(description="phrases", ordering="phrases_held")
    def phrase_count(self, obj: Any) -> int:
        return int(obj.phrases_held)

    @admin.display(description="personas", ordering="personas_held")
    def persona_count(self, obj: Any) -> str:
        return "all" if obj.is_global else str(obj.personas_held)

    def changed(self, obj: PhraseList, added: bool) -> None:
        phrase_services.phrase_list_changed(obj, added)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        phrase_services.delete_phrase_lists(PhraseList.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[PhraseList]) -> None:
        phrase_services.delete_phrase_lists(PhraseList.objects.filter(pk__in=queryset.values("pk")))

    @admin.action(description="Enable selected lists", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[PhraseList]) -> None:
        self.switch(request, phrase_services.set_phrase_lists_enabled, queryset, True)

    @admin.action(description="Disable selected lists", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[PhraseList]) -> None:
        self.switch(request, phrase_services.set_phrase_lists_enabled, queryset, False)

    @button("Import a list", "add", "import", icon="upload")
    def import_list(self, request: HttpRequest) -> HttpResponse:
        form = self.upload(request, NewPhraseListForm)
        if form.is_valid():
            given = form.cleaned_data
            try:
                made = phrase_services.create_phrase_list(given["name"], given["rules"], is_global=given["is_global"])
            except ValidationError as error:
                form.add_error(None, "; ".join(error.messages))
            else:
                self.log_addition(request, made, f"Imported with {len(given['rules'])} phrases.")
                self.message_user(request, f"{made}: {len(given['rules'])} phrases.", messages.SUCCESS)
                return redirect("admin:personas_phraselist_change", made.pk)
        back = reverse("admin:personas_phraselist_changelist")
        return self.page(request, "Import a phrase list", "import", form=form, back=back)

    @button("Import phrases", "change", "import", icon="upload")
    def import_into(self, request: HttpRequest, object_id: str) -> HttpResponse:
        phrase_list = self.one(request, object_id)
        form = self.upload(request, PhraseImportForm)
        if form.is_valid():
            given = form.cleaned_data
            try:
                count = phrase_services.import_phrases(phrase_list, given["rules"], given["replace"])
            except ValidationError as error:
                form.add_error(None, "; ".join(error.messages))
            else:
                word = "Replaced all phrases by" if given["replace"] else "Added"
                self.log_change(request, phrase_list, f"{word} {count} imported phrases.")
                self.message_user(request, f"{word} {count} phrases.", messages.SUCCESS)
                return redirect("admin:personas_phraselist_change", phrase_list.pk)
        back = reverse("admin:personas_phraselist_change", args=[phrase_list.pk])
        return self.page(request, f"Import phrases into {phrase_list}", "import", form=form, back=back)

    @button("JSON", "view", "export-json")
    def export_json(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._export(request, object_id, "json")

    @button("Plain text", "view", "export-text")
    def export_text(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._export(request, object_id, "txt")

    def _export(self, request: HttpRequest, object_id: str, ending: str) -> HttpResponse:
        phrase_list = self.one(request, object_id)
        dump = phrase_files.dump_json if ending == "json" else phrase_files.dump_lines
        try:
            text = dump(phrase_services.rules_of(phrase_list))
        except ValueError as error:
            self.message_user(request, f"Not exported: {error}.", messages.ERROR)
            return redirect("admin:personas_phraselist_change", phrase_list.pk)
        kind = "application/json" if ending == "json" else "text/plain; charset=utf-8"
        return download(text.encode(), f"{slugify(phrase_list.name) or 'phrases'}.{ending}", kind)

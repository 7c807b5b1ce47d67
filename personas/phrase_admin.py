"""The admin of phrase lists: paged, searched, imported and exported, also with a hundred thousand phrases."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Exists, IntegerField, Model, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.text import slugify
from unfold.admin import TabularInline

from personas import phrase_files, phrase_services
from personas.models import Persona, Phrase, PhraseList
from personas.phrase_forms import PhraseForm, PhraseFormSet, PhraseListForm
from personas.phrase_import_admin import PhraseImportAdmin
from personas.phrase_rules import MAX_PHRASE_CHARS
from personas.versioned_admin import button, download

MAX_ROWS = 200  # of one form: those of a page and new ones
PHRASES_PER_PAGE = 50  # rendering takes about 10 ms a row; Django refuses forms with more than 1,000 values


class PhraseInline(TabularInline):
    """One page of a list's phrases in alphabetical order; with ``?find=``, of those that contain a text."""

    model = Phrase
    form = PhraseForm
    formset = PhraseFormSet
    ordering = ("text", "pk")
    extra = 1
    per_page = PHRASES_PER_PAGE
    hide_title = True

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        """Bound the rows: a form names their number itself, and each takes milliseconds, rendered or not."""
        return super().get_formset(request, obj, **{**kwargs, "max_num": MAX_ROWS, "absolute_max": MAX_ROWS})

    def get_queryset(self, request: HttpRequest) -> QuerySet[Phrase]:
        phrases: QuerySet[Phrase] = super().get_queryset(request)
        wanted = request.GET.get("find", "")[:MAX_PHRASE_CHARS].replace("\0", "")
        return phrases.filter(text__icontains=wanted) if wanted else phrases


@admin.register(PhraseList)
class PhraseListAdmin(PhraseImportAdmin):
    """Phrase lists."""

    form = PhraseListForm
    list_display = ("name", "is_global", "enabled", "phrase_count", "persona_count", "version", "updated")
    list_filter = ("enabled", "is_global")
    search_fields = ("name",)  # and the phrases, see get_search_results
    search_help_text = "Finds lists by their name and by the phrases in them."
    readonly_fields = ("version", "created", "updated")
    fieldsets = ((None, {"fields": ("name", ("is_global", "enabled"), "note", ("version", "created", "updated"))}),)
    inlines = (PhraseInline,)
    change_form_outer_before_template = "admin/personas/find_phrase.html"
    warn_unsaved_form = True
    actions = ("enable", "disable")
    actions_list = ("import_list",)
    actions_detail = (
        "import_into",
        {"title": "Export", "icon": "download", "items": ["export_json", "export_text"]},
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[PhraseList]:
        """Lists with their counts. Subqueries: a join would multiply the phrases by the personas."""
        lists: QuerySet[PhraseList] = super().get_queryset(request)
        return lists.annotate(
            phrases_held=_count(Phrase.objects.order_by().filter(phrase_list=OuterRef("pk")), "phrase_list"),
            personas_held=_count(
                Persona.phrase_lists.through.objects.order_by().filter(phraselist=OuterRef("pk")), "phraselist"
            ),
        )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[PhraseList], search_term: str
    ) -> tuple[QuerySet[PhraseList], bool]:
        """Find lists by name or phrase. A semi-join: Django's join would count every list once per phrase."""
        term = search_term.strip()[:MAX_PHRASE_CHARS].replace("\0", "")
        if not term:
            return queryset, False
        holds = Exists(Phrase.objects.order_by().filter(phrase_list=OuterRef("pk"), text__icontains=term))
        return queryset.filter(Q(name__icontains=term) | holds), False

    @admin.display(description="phrases", ordering="phrases_held")
    def phrase_count(self, obj: Any) -> int:
        return int(obj.phrases_held)

    @admin.display(description="personas", ordering="personas_held")
    def persona_count(self, obj: Any) -> str:
        return "all" if obj.is_global else str(obj.personas_held)

    def changed(self, obj: PhraseList, added: bool) -> None:
        phrase_services.phrase_list_changed(obj, added)

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[Any, int], set[Any], list[Any]]:
        """Name the lists and count their phrases. Django's own page would show every phrase."""
        shown = [f"Phrase list: {phrase_list} ({phrase_list.phrases.count()} phrases)" for phrase_list in objs]
        counts = {"phrase lists": len(shown), "phrases": Phrase.objects.filter(phrase_list__in=list(objs)).count()}
        missing = set() if self.has_delete_permission(request) else {self.opts.verbose_name}
        return shown, counts, missing, []

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


def _count(rows: QuerySet[Any], group: str) -> Coalesce:
    counted = rows.values(group).annotate(held=Count("pk")).values("held")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)

"""The admin of tools and of the labelled example lines."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, Model, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST

from personas import tool_services
from personas.searchable_admin import SearchableAdmin
from personas.tool_files import MAX_HISTORY_CHARS, MAX_TEXT_CHARS, dump_csv, dump_jsonl
from personas.tool_forms import ExampleImportForm, ToolExampleForm, ToolForm
from personas.tool_models import Tool, ToolExample
from personas.tool_selectors import labelled_lines
from personas.upload_form import one_line
from personas.versioned_admin import VersionedAdmin, button, download


@admin.register(Tool)
class ToolAdmin(VersionedAdmin):
    """Tools that clients offer."""

    form = ToolForm
    list_display = ("name", "description", "is_global", "enabled", "example_count", "version", "updated")
    list_filter = ("enabled", "is_global")
    search_fields = ("name", "description")
    readonly_fields = ("version", "created", "updated")
    autocomplete_fields = ("personas",)
    warn_unsaved_form = True
    actions = ("enable", "disable")
    fieldsets = (
        (None, {"fields": ("name", "description", "parameters", ("is_global", "enabled"), "personas")}),
        ("History", {"fields": (("version", "created", "updated"),)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tool]:
        tools: QuerySet[Tool] = super().get_queryset(request)
        return tools.annotate(examples_held=Count("examples"))

    @admin.display(description="examples", ordering="examples_held")
    def example_count(self, obj: Any) -> int:
        return int(obj.examples_held)

    def changed(self, obj: Tool, added: bool) -> None:
        tool_services.tool_changed(obj, added)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        tool_services.delete_tools(Tool.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Tool]) -> None:
        tool_services.delete_tools(Tool.objects.filter(pk__in=queryset.values("pk")))

    @admin.action(description="Enable selected tools", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Tool]) -> None:
        self.switch(request, tool_services.set_tools_enabled, Tool.objects.filter(pk__in=queryset.values("pk")), True)

    @admin.action(description="Disable selected tools", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Tool]) -> None:
        self.switch(request, tool_services.set_tools_enabled, Tool.objects.filter(pk__in=queryset.values("pk")), False)


@admin.register(ToolExample)
class ToolExampleAdmin(SearchableAdmin):
    """Lines with the tool they want, or none: what the classifier is trained on."""

    form = ToolExampleForm
    list_display = ("__str__", "wanted", "history_lines", "group", "note", "updated")
    list_filter = (("tool", admin.RelatedFieldListFilter),)
    list_per_page = 100
    list_select_related = ("tool",)
    search_fields = ("text", "group", "note")
    autocomplete_fields = ("tool",)
    actions_list = ("import_page", "export_csv", "export_jsonl")

    @admin.display(description="tool", ordering="tool__name")
    def wanted(self, obj: ToolExample) -> str:
        return obj.tool.name if obj.tool else "none"

    @admin.display(description="lines before")
    def history_lines(self, obj: ToolExample) -> int:
        return len(obj.history.splitlines())

    def get_urls(self) -> list[URLPattern]:
        wrong = self.admin_site.admin_view(require_POST(self.was_wrong))
        return [path("was-wrong/", wrong, name="personas_toolexample_wrong"), *super().get_urls()]

    @button("Import", "add", "import", icon="upload")
    def import_page(self, request: HttpRequest) -> HttpResponse:
        form = ExampleImportForm(request.POST, request.FILES) if request.method == "POST" else ExampleImportForm()
        if form.is_valid():
            try:
                added, relabelled = tool_services.import_examples(form.cleaned_data["lines"])
            except ValidationError as error:
                form.add_error(None, one_line(error))
            else:
                note = f"{added} examples were added, {relabelled} got a new label. Train to put them in force."
                self.message_user(request, note, messages.SUCCESS)
                return redirect("admin:personas_toolexample_changelist")
        return VersionedAdmin.page(
            self, request, "Import examples", "import", form=form, back=reverse("admin:personas_toolexample_changelist")
        )  # fmt: skip

    @button("Export CSV", "view", "export-csv", icon="download")
    def export_csv(self, request: HttpRequest) -> HttpResponse:
        return download(dump_csv(labelled_lines()).encode(), "tool_examples.csv", "text/csv; charset=utf-8")

    @button("Export JSONL", "view", "export-jsonl", icon="download")
    def export_jsonl(self, request: HttpRequest) -> HttpResponse:
        return download(dump_jsonl(labelled_lines()).encode(), "tool_examples.jsonl", "application/jsonl")

    def was_wrong(self, request: HttpRequest) -> JsonResponse:
        """Add the line of a wrong decision with the right label; Try it calls this.

        POST ``text``, ``history``, and ``tool`` (the tool that the line wants, empty for none).
        """
        if not self.has_add_permission(request):
            raise PermissionDenied
        text, history = request.POST.get("text", "").strip(), request.POST.get("history", "")
        if not text or len(text) > MAX_TEXT_CHARS or len(history) > MAX_HISTORY_CHARS:
            return JsonResponse({"detail": "The line is empty or too long."}, status=400)
        try:
            example = tool_services.add_example(text, request.POST.get("tool", ""), history)
        except ValidationError as error:
            return JsonResponse({"detail": one_line(error)}, status=400)
        self.log_addition(request, example, "Marked wrong in Try it.")
        return JsonResponse({"tool": example.tool.name if example.tool else ""})

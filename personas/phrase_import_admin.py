"""The import pages of phrase lists: upload, preview, save."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from personas import phrase_services, phrase_uploads
from personas.models import PhraseList
from personas.phrase_import_forms import NewListPreviewForm, PhraseSourceForm, PreviewForm
from personas.upload_form import one_line
from personas.versioned_admin import VersionedAdmin, button


class PhraseImportAdmin(VersionedAdmin):
    """Two pages on one address: the source without ``?upload=``, the preview with it."""

    @button("Import a list", "add", "import", icon="upload")
    def import_list(self, request: HttpRequest) -> HttpResponse:
        """Import a new list."""
        back = reverse("admin:personas_phraselist_changelist")
        return self._import(request, "Import a phrase list", back, None)

    @button("Import phrases", "change", "import", icon="upload")
    def import_into(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Import phrases into a list."""
        phrase_list = self.one(request, object_id)
        back = reverse("admin:personas_phraselist_change", args=[phrase_list.pk])
        return self._import(request, f"Import phrases into {phrase_list}", back, phrase_list)

    def _import(self, request: HttpRequest, title: str, back: str, phrase_list: PhraseList | None) -> HttpResponse:
        if "upload" not in request.GET:
            form = self.upload(request, PhraseSourceForm)
            if not form.is_valid():
                return self.page(request, title, "import", form=form, back=back, submit_label="Preview")
            upload = phrase_uploads.keep(request.user, form.cleaned_data["source"])  # type: ignore[arg-type]
            return redirect(f"{request.path}?upload={upload.pk}")
        source = phrase_uploads.find(request.user, request.GET["upload"])  # type: ignore[arg-type]
        if source is None:
            self.message_user(request, "The upload has expired: choose the file again.", messages.WARNING)
            return redirect(request.path)
        form_class = NewListPreviewForm if phrase_list is None else PreviewForm
        preview_form = form_class(source, phrase_list, request.POST if request.method == "POST" else None)
        return self._preview(request, title, preview_form)

    def _preview(self, request: HttpRequest, title: str, form: PreviewForm) -> HttpResponse:
        """Show what would be saved; save where the page has shown exactly this."""
        valid = form.is_bound and form.is_valid()
        cleaned: dict[str, Any] = getattr(form, "cleaned_data", {})
        found, problem = cleaned.get("found"), ""
        if not form.is_bound:
            try:
                found = form.found({})
            except ValueError as error:
                problem = str(error)
        answers = form.answers(cleaned or {"numbers": form.initial["numbers"] if "numbers" in form.fields else ""})
        if valid and "save" in request.POST and cleaned["shown"] == answers:
            try:
                return self._save(request, form, cleaned)
            except ValidationError as error:
                form.add_error(None, one_line(error))
        changed = valid and "save" in request.POST and cleaned["shown"] != answers
        rows = form.rows(found) if found else []
        return self.page(
            request,
            title,
            "preview",
            form=form,
            reading=form.reading,
            found=found,
            problem=problem,
            rows=rows,
            more=len(found.rules) - len(rows) if found else 0,
            answers=answers,
            changed=changed,
            back=request.path,
        )

    def _save(self, request: HttpRequest, form: PreviewForm, cleaned: dict[str, Any]) -> HttpResponse:
        rules = cleaned["found"].rules
        if form.phrase_list is None:
            phrase_list = phrase_services.create_phrase_list(cleaned["name"], rules, is_global=cleaned["is_global"])
            self.log_addition(request, phrase_list, f"Imported with {len(rules)} phrases.")
            self.message_user(request, f"{phrase_list}: {len(rules)} phrases.", messages.SUCCESS)
        else:
            phrase_list = form.phrase_list
            count = phrase_services.import_phrases(phrase_list, rules, cleaned["replace"])
            word = "Replaced all phrases by" if cleaned["replace"] else "Added"
            self.log_change(request, phrase_list, f"{word} {count} imported phrases.")
            self.message_user(request, f"{word} {count} phrases.", messages.SUCCESS)
        phrase_uploads.drop(request.user)  # type: ignore[arg-type]
        return redirect("admin:personas_phraselist_change", phrase_list.pk)

"""The forms of phrase lists: rows, pages of rows, and imports."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import CharField, F, Value
from django.db.models.functions import Cast, Concat
from unfold.forms import PaginationInlineFormSet
from unfold.widgets import (
    UnfoldAdminFileFieldWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from personas import phrase_files, token_biases
from personas.models import Phrase, PhraseList
from personas.phrase_files import phrase_key
from personas.snapshot import BAN_BIAS, PhraseRule
from personas.upload_form import UploadForm, sentence


class PhraseForm(forms.ModelForm):  # type: ignore[type-arg]
    """One row of a list. Spaces around a phrase are part of it, so nothing is stripped."""

    text = forms.CharField(
        strip=False,
        max_length=phrase_files.MAX_PHRASE_CHARS,
        widget=UnfoldAdminTextInputWidget({"class": "font-mono", "spellcheck": "false"}),
    )

    class Meta:
        model = Phrase
        fields = ("text", "bias", "case_sensitive", "whole_word", "note")


class PhraseFormSet(PaginationInlineFormSet):
    """One page of a list's phrases, checked against the other pages too."""

    def clean(self) -> None:
        super().clean()
        live = [
            form
            for form in self.forms
            if form not in self.deleted_forms and form.has_changed() | bool(form.instance.pk)
        ]
        shown = [form.instance.pk for form in self.initial_forms if form.instance.pk]
        elsewhere = Phrase.objects.filter(phrase_list=self.instance.pk).exclude(pk__in=shown)
        keys = Counter(elsewhere.values_list("key", flat=True))
        biased = list(elsewhere.filter(bias__gt=BAN_BIAS).values_list("text", flat=True))
        for form in live:
            cleaned = getattr(form, "cleaned_data", {})
            text, bias = cleaned.get("text"), cleaned.get("bias")
            if not text or bias is None:
                continue  # it has errors of its own
            key = phrase_key(text, cleaned.get("case_sensitive", False))
            if keys[key]:
                form.add_error("text", "This phrase is in the list already.")
            keys[key] += 1
            if bias > BAN_BIAS:
                biased.append(text)
        if keys.total() > phrase_files.MAX_PHRASES:
            raise ValidationError(f"A list holds at most {phrase_files.MAX_PHRASES} phrases.")
        token_biases.check_list(self.instance, biased)

    def save_existing_objects(self, commit: bool = True) -> Any:
        """Rows that change step aside first, so that two of them can swap their texts."""
        if commit:
            changed = [form.instance.pk for form in self.initial_forms if form.has_changed() and form.instance.pk]
            Phrase.objects.filter(pk__in=changed).update(key=Concat(Value("!"), Cast(F("pk"), CharField())))
        return super().save_existing_objects(commit)


class PhraseImportForm(UploadForm):
    """Phrases from a file or from the clipboard."""

    file = forms.FileField(required=False, help_text="JSON or plain text, UTF-8.", widget=UnfoldAdminFileFieldWidget)
    text = forms.CharField(
        required=False,
        strip=False,
        label="Or paste",
        help_text='One phrase a line, each banned exactly as it stands, spaces included; or JSON: {"phrase": bias}.',
        widget=UnfoldAdminTextareaWidget({"class": "font-mono", "rows": 12, "spellcheck": "false"}),
    )
    replace = forms.BooleanField(
        required=False,
        label="Replace what the list holds",
        help_text="Otherwise the phrases are added.",
        widget=UnfoldBooleanWidget,
    )

    def clean(self) -> dict[str, Any]:
        """Adds ``rules``, a tuple of :class:`PhraseRule`."""
        cleaned = super().clean() or self.cleaned_data
        upload, text = cleaned.get("file"), cleaned.get("text", "")
        if self.errors:
            return cleaned
        if bool(upload) == bool(text.strip()):
            raise ValidationError("Choose a file or paste phrases, one of the two.")
        try:
            source = phrase_files.decode(self.read(phrase_files.MAX_FILE_BYTES)) if upload else text
            rules: tuple[PhraseRule, ...] = phrase_files.parse(source)
            if not rules:
                raise ValueError("no phrases in it")
        except ValueError as error:
            self.add_error("file" if upload else "text", sentence(error))
        else:
            cleaned["rules"] = rules
        return cleaned


class NewPhraseListForm(PhraseImportForm):
    """A new list from a file or from the clipboard."""

    replace = None  # type: ignore[assignment]  # Django's way to drop an inherited field
    name = forms.CharField(max_length=100, widget=UnfoldAdminTextInputWidget)
    is_global = forms.BooleanField(
        required=False, label="Global", help_text="In force for every persona.", widget=UnfoldBooleanWidget
    )
    field_order = ("name", "is_global", "file", "text")

    def clean_name(self) -> str:
        """Free names only."""
        name = str(self.cleaned_data["name"])
        if PhraseList.objects.filter(name=name).exists():
            raise ValidationError("A list of this name exists already.")
        return name

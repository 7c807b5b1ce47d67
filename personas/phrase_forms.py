"""The forms of a phrase list and of its phrases, page by page."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import CharField, F, Value
from django.db.models.functions import Cast, Concat
from unfold.forms import PaginationInlineFormSet
from unfold.widgets import UnfoldAdminTextareaWidget

from personas import token_biases
from personas.models import Phrase, PhraseList
from personas.phrase_rules import MAX_PHRASE_CHARS, MAX_PHRASES, phrase_key
from personas.snapshot import BAN_BIAS
from personas.text_fields import MultilineField


class PhraseListForm(forms.ModelForm):  # type: ignore[type-arg]
    """The fields of a list itself."""

    class Meta:
        model = PhraseList
        fields = ("name", "is_global", "enabled", "note")
        field_classes = {"note": MultilineField}


class PhraseForm(forms.ModelForm):  # type: ignore[type-arg]
    """One row of a list. Nothing is stripped: white space around a phrase belongs to it.

    The text is a textarea of one row: browsers drop line breaks out of an input, and a phrase may hold one.
    """

    text = MultilineField(
        strip=False,
        max_length=MAX_PHRASE_CHARS,
        widget=UnfoldAdminTextareaWidget({"class": "font-mono", "rows": 1, "spellcheck": "false"}),
    )

    class Meta:
        model = Phrase
        fields = ("text", "bias", "case_sensitive", "whole_word", "note")

    def is_multipart(self) -> bool:
        """Return True: large percent-encoded forms are refused (``yapserver.http_limits``)."""
        return True


class PhraseFormSet(PaginationInlineFormSet):
    """One page of a list's phrases, checked against the other pages by query."""

    def clean(self) -> None:
        """Refuse phrases that the list has already, too many phrases, and too many biases."""
        super().clean()
        live = [
            form
            for form in self.forms
            if form not in self.deleted_forms and form.has_changed() | bool(form.instance.pk)
        ]
        shown = [form.instance.pk for form in self.initial_forms if form.instance.pk]
        elsewhere = Phrase.objects.filter(phrase_list=self.instance.pk).exclude(pk__in=shown)
        keyed = [
            (form, phrase_key(cleaned["text"], cleaned.get("case_sensitive", False)), cleaned)
            for form in live
            if (cleaned := getattr(form, "cleaned_data", {})).get("text") and cleaned.get("bias") is not None
        ]  # rows without these two have errors of their own
        taken = elsewhere.filter(key__in={key for _, key, _ in keyed}).values_list("key", flat=True)
        keys = Counter(taken)
        for form, key, _ in keyed:
            if keys[key]:
                form.add_error("text", "This phrase is in the list already.")
            keys[key] += 1
        if elsewhere.count() + len(live) > MAX_PHRASES:
            raise ValidationError(f"A list holds at most {MAX_PHRASES} phrases.")
        biased = list(elsewhere.filter(bias__gt=BAN_BIAS).values_list("text", flat=True))
        biased += [cleaned["text"] for _, _, cleaned in keyed if cleaned["bias"] > BAN_BIAS]
        token_biases.check_list(self.instance, biased)

    def save_existing_objects(self, commit: bool = True) -> Any:
        """Save changed rows. Their keys are freed first, so that two rows can swap their texts."""
        if commit:
            changed = [form.instance.pk for form in self.initial_forms if form.has_changed() and form.instance.pk]
            Phrase.objects.filter(pk__in=changed).update(key=Concat(Value("!"), Cast(F("pk"), CharField())))
        return super().save_existing_objects(commit)

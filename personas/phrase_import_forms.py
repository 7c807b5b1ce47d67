"""The two steps of a phrase import: the source, then a preview with the questions that the file leaves open."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import (
    UnfoldAdminFileFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from personas import phrase_files, phrase_formats, token_biases
from personas.models import PhraseList
from personas.phrase_import import NumberMeaning, Preview, preview, suggested_meaning
from personas.phrase_rules import MAX_TOKEN_BIASES
from personas.snapshot import BAN_BIAS
from personas.upload_form import UploadForm, sentence

SHOWN_PHRASES = 100
MEANINGS = [
    (NumberMeaning.IGNORED.value, "nothing: ban every phrase exactly"),
    (NumberMeaning.BIAS.value, "a bias: -100 bans, above makes the phrase's tokens less or more likely"),
    (NumberMeaning.PROBABILITY.value, "a probability from 0 to 1: becomes the bias ln(p); 0 bans"),
]


class PhraseSourceForm(UploadForm):
    """Step 1: a file or pasted text."""

    file = forms.FileField(
        required=False,
        help_text=(
            "UTF-8, at most 10 MiB: one phrase a line, CSV with a header, JSON, or the lists of antislop, SillyTavern "
            "and KoboldCpp."
        ),
        widget=UnfoldAdminFileFieldWidget,
    )
    text = forms.CharField(
        required=False,
        strip=False,
        label="Or paste",
        help_text="The next page shows the phrases before they are saved.",
        widget=UnfoldAdminTextareaWidget({"class": "font-mono", "rows": 12, "spellcheck": "false"}),
    )

    def clean(self) -> dict[str, Any]:
        """Add ``source``, the text of a list in a known format."""
        cleaned = super().clean() or self.cleaned_data
        upload, text = cleaned.get("file"), cleaned.get("text", "")
        if self.errors:
            return cleaned
        if bool(upload) == bool(text.strip()):
            raise ValidationError("Choose a file or paste phrases, one of the two.")
        try:
            source = phrase_files.decode(self.read(phrase_files.MAX_FILE_BYTES)) if upload else text
            phrase_formats.read(source)
        except ValueError as error:
            self.add_error("file" if upload else "text", sentence(error))
        else:
            cleaned["source"] = source
        return cleaned


class PreviewForm(forms.Form):
    """Step 2: the phrases as they would be saved into a list. Adds ``found``, a :class:`Preview`, to the clean data."""

    numbers = forms.ChoiceField(
        choices=MEANINGS,
        label="The number beside a phrase is",
        widget=UnfoldAdminSelectWidget,
    )
    whole_word = forms.BooleanField(
        required=False,
        label="Whole words only",
        help_text="On: glow is banned, glowing is not. Off: every text that contains the phrase.",
        widget=UnfoldBooleanWidget,
    )
    replace = forms.BooleanField(
        required=False,
        label="Replace the phrases of the list",
        help_text="Off: the phrases are added.",
        widget=UnfoldBooleanWidget,
    )
    shown = forms.CharField(required=False, widget=forms.HiddenInput)  # the answers that the page was made with

    def __init__(self, source: str, phrase_list: PhraseList | None, data: Any = None) -> None:
        self.reading = phrase_formats.read(source)
        self.phrase_list = phrase_list
        super().__init__(data, initial={"numbers": suggested_meaning(self.reading).value})
        if not self.reading.has_numbers:
            del self.fields["numbers"]

    @cached_property
    def known_keys(self) -> set[str]:
        """The phrase keys of the list."""
        return set() if self.phrase_list is None else set(self.phrase_list.phrases.values_list("key", flat=True))

    def answers(self, cleaned: dict[str, Any]) -> str:
        """Return the answers that decide what would be saved, for comparison with ``shown``."""
        marks = (bool(cleaned.get(name)) for name in ("whole_word", "replace"))
        return "/".join(map(str, (cleaned.get("numbers", ""), *marks)))

    def clean(self) -> dict[str, Any]:
        """Add ``found``. Refuse phrases and numbers that cannot be used, and too many biases."""
        cleaned = super().clean() or self.cleaned_data
        try:
            cleaned["found"] = found = self.found(cleaned)
            if found.biased > MAX_TOKEN_BIASES:
                raise ValueError(
                    f"{found.biased} phrases have a bias above {BAN_BIAS:g}; at most {MAX_TOKEN_BIASES} may"
                )
            self._check_biases(found, cleaned)
        except ValueError as error:
            self.add_error("numbers" if "numbers" in self.fields else None, sentence(error))
        return cleaned

    def found(self, cleaned: dict[str, Any]) -> Preview:
        """Return the phrases under these answers. Raises ``ValueError`` as :func:`personas.phrase_import.preview`."""
        meaning = NumberMeaning(cleaned.get("numbers") or suggested_meaning(self.reading))
        known = () if cleaned.get("replace") else self.known_keys
        return preview(self.reading, meaning, whole_word=bool(cleaned.get("whole_word")), known_keys=known)

    def rows(self, found: Preview) -> list[tuple[str, str, str]]:
        """Return the first phrases for a table: text, effect, matching."""
        return [
            (
                rule.text,
                "banned" if rule.banned else f"bias {rule.bias:.4g}",
                ", ".join(
                    word
                    for word, on in (("whole word", rule.whole_word), ("case-sensitive", rule.case_sensitive))
                    if on
                ),
            )
            for rule in found.rules[:SHOWN_PHRASES]
        ]

    def _check_biases(self, found: Preview, cleaned: dict[str, Any]) -> None:
        texts = [rule.text for rule in found.rules if not rule.banned]
        if self.phrase_list is None or not texts:
            return
        if not cleaned.get("replace"):
            texts += self.phrase_list.phrases.filter(bias__gt=BAN_BIAS).values_list("text", flat=True)
        try:
            token_biases.check_list(self.phrase_list, texts)
        except ValidationError as error:
            raise ValueError(" ".join(error.messages).rstrip(".")) from None


class NewListPreviewForm(PreviewForm):
    """Step 2 of a new list: its name, and whether it is global."""

    replace = None  # type: ignore[assignment]  # Django's way to drop an inherited field
    name = forms.CharField(max_length=100, widget=UnfoldAdminTextInputWidget)
    is_global = forms.BooleanField(
        required=False, label="Global", help_text="Applies to every persona.", widget=UnfoldBooleanWidget
    )
    field_order = ("name", "is_global", "numbers", "whole_word", "shown")

    def clean_name(self) -> str:
        """Refuse the name of an existing list."""
        name = str(self.cleaned_data["name"])
        if PhraseList.objects.filter(name=name).exists():
            raise ValidationError("A list of this name exists already.")
        return name

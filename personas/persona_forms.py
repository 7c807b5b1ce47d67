"""The forms of a persona: what a person may type or upload, refused where it stands wrong."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.urls import reverse
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from personas import cards, png, token_biases, tokens
from personas.models import Gender, Persona, validate_letters
from personas.sampling_ranges import SAMPLING_KEYS, sampling_range
from personas.snapshot import SPEECH_KINDS
from personas.upload_form import UploadForm, sentence


class PersonaForm(forms.ModelForm):  # type: ignore[type-arg]
    """A persona; its prompts are counted by the engines' own tokenizers, while they are typed and when saved."""

    class Meta:
        model = Persona
        fields = (
            "slug",
            "name",
            "nickname",
            "gender",
            "personality",
            "chat_prompt",
            "tool_prompt",
            *SAMPLING_KEYS,
            "phrase_lists",
            "label_stops",
            "output_style",
            *(f"skip_{kind}" for kind in SPEECH_KINDS),
            "enabled",
        )

    class Media:
        js = ("personas/token_counts.js",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in {"chat_prompt", "tool_prompt"} & self.fields.keys():  # absent for those who may only look
            self.fields[name].widget.attrs["data-token-counts"] = reverse("admin:personas_persona_tokens")
        for key in set(SAMPLING_KEYS) & self.fields.keys():
            low, high = sampling_range(key)
            self.fields[key].help_text = f"{low:g} to {high:g}. Empty: the server's default."

    def clean_personality(self) -> str:
        """Any case is accepted, lower case is kept."""
        return str(self.cleaned_data["personality"]).lower()

    def clean(self) -> dict[str, Any]:
        """Token limits, and how many biases would be in force at once."""
        cleaned = super().clean() or self.cleaned_data
        try:
            tokens.check_prompts(cleaned.get("chat_prompt", ""), cleaned.get("tool_prompt", ""))
        except ValidationError as error:
            self.add_error(None, error)
        try:
            token_biases.check_attached(cleaned.get("phrase_lists") or ())
        except ValidationError as error:
            self.add_error("phrase_lists", error)
        return cleaned


class CardForm(UploadForm):
    """A character card. Cards have no gender, and their personality is prose: both can be given here."""

    file = forms.FileField(
        label="Card", help_text="Character card V2 or V3, as JSON or PNG.", widget=UnfoldAdminFileFieldWidget
    )
    gender = forms.ChoiceField(
        choices=[("", "as the card says"), *Gender.choices], required=False, widget=UnfoldAdminSelectWidget
    )
    personality = forms.CharField(
        max_length=20, required=False, help_text="One word, letters only. Empty: as the card says.",
        widget=UnfoldAdminTextInputWidget,
    )  # fmt: skip

    def clean_personality(self) -> str:
        """Lower case, letters only."""
        value = str(self.cleaned_data["personality"]).lower()
        if value:
            validate_letters(value)
        return value

    def clean(self) -> dict[str, Any]:
        """Adds ``card``."""
        cleaned = super().clean() or self.cleaned_data
        if "file" not in cleaned:
            return cleaned
        try:
            card = cleaned["card"] = cards.read(self.read(png.MAX_BYTES))
        except ValueError as error:
            self.add_error("file", sentence(error))
            return cleaned
        for name in ("gender", "personality"):
            if name not in self.errors and not (cleaned.get(name) or getattr(card, name)):
                self.add_error(name, "The card does not say; please choose one.")
        return cleaned

"""The forms of a persona: the change form and the import of a card."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.urls import reverse
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from personas import cards, token_biases, tokens
from personas.models import Gender, Persona, validate_letters
from personas.sampling_ranges import SAMPLING_KEYS, sampling_range
from personas.snapshot import SPEECH_KINDS
from personas.text_fields import MultilineField
from personas.upload_form import UploadForm, sentence

MAX_PERSONALITY_CHARS = 20


def clean_word(value: str) -> str:
    """Return a personality in lower case. Raises ``ValidationError`` where the result is not one word of letters."""
    word = value.lower()
    validate_letters(word)
    if len(word) > MAX_PERSONALITY_CHARS:  # lower case can be longer: İ becomes two characters
        raise ValidationError(f"At most {MAX_PERSONALITY_CHARS} letters.", code="max_length")
    return word


class PersonaForm(forms.ModelForm):  # type: ignore[type-arg]
    """A persona. The engines' tokenizers count its prompts while the operator types and when the form is saved."""

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
            "tool_threshold",
            "openai_tool_decision",
            *SAMPLING_KEYS,
            "phrase_lists",
            "label_stops",
            "output_style",
            *(f"skip_{kind}" for kind in SPEECH_KINDS),
            "enabled",
        )
        field_classes = {"chat_prompt": MultilineField, "tool_prompt": MultilineField}

    class Media:
        js = ("personas/token_counts.js",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in {"chat_prompt", "tool_prompt"} & self.fields.keys():  # absent without the right to change
            self.fields[name].widget.attrs["data-token-counts"] = reverse("admin:personas_persona_tokens")
        for key in set(SAMPLING_KEYS) & self.fields.keys():
            low, high = sampling_range(key)
            self.fields[key].help_text = f"{low:g} to {high:g}. Empty: the server's default."

    def clean_personality(self) -> str:
        """Accept any letter case, keep lower case."""
        return clean_word(str(self.cleaned_data["personality"]))

    def clean(self) -> dict[str, Any]:
        """Check the token limits, and the number of token biases that would be in force at once."""
        cleaned = super().clean() or self.cleaned_data
        char = cleaned.get("nickname", "").strip() or cleaned.get("name", "")
        try:
            tokens.check_prompts(cleaned.get("chat_prompt", ""), cleaned.get("tool_prompt", ""), char)
        except ValidationError as error:
            self.add_error(None, error)
        try:
            token_biases.check_attached(cleaned.get("phrase_lists") or ())
        except ValidationError as error:
            self.add_error("phrase_lists", error)
        return cleaned

    def is_multipart(self) -> bool:
        """Return True: large percent-encoded forms are refused (``yapserver.http_limits``)."""
        return True


class CardForm(UploadForm):
    """A character card. Cards have no gender, and their personality is prose: the form asks for both."""

    file = forms.FileField(
        label="Card",
        help_text="Character card V1, V2 or V3, as JSON, PNG or CHARX; at most 10 MiB.",
        widget=UnfoldAdminFileFieldWidget,
    )
    gender = forms.ChoiceField(
        choices=[("", "as the card says"), *Gender.choices], required=False, widget=UnfoldAdminSelectWidget
    )
    personality = forms.CharField(
        max_length=MAX_PERSONALITY_CHARS,
        required=False,
        help_text="One word, letters only. Empty: as the card says.",
        widget=UnfoldAdminTextInputWidget,
    )

    def clean_personality(self) -> str:
        """Accept any letter case, keep lower case."""
        value = str(self.cleaned_data["personality"])
        return clean_word(value) if value else ""

    def clean(self) -> dict[str, Any]:
        """Read the file and add ``card``, a :class:`personas.cards.Card`."""
        cleaned = super().clean() or self.cleaned_data
        if "file" not in cleaned:
            return cleaned
        try:
            card = cleaned["card"] = cards.read(self.read(cards.MAX_FILE_BYTES))
        except ValueError as error:
            self.add_error("file", sentence(error))
            return cleaned
        for name in ("gender", "personality"):
            if name not in self.errors and not (cleaned.get(name) or getattr(card, name)):
                self.add_error(name, "The card does not say; please choose one.")
        return cleaned

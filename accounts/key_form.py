"""The forms an operator fills in: a key with its limits, and a rotation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.apps import apps
from django.conf import settings
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelect2MultipleWidget, UnfoldAdminSplitDateTimeWidget

from accounts.defaults import default_limits
from accounts.models import LIMIT_FIELDS, ApiKey


def _defaults() -> dict[str, str]:
    limits = default_limits(settings.ENV)
    switch = "0 switches this limit off."
    return {
        "max_connections": "Empty: no limit of its own, only the server's places.",
        "max_messages": f"Empty: the server's {limits.messages.limit}. {switch}",
        "message_window_s": f"Empty: the server's {limits.messages.seconds:g}. {switch}",
        "max_cancels": f"Empty: the server's {limits.cancels.limit}. {switch}",
        "cancel_window_s": f"Empty: the server's {limits.cancels.seconds:g}. {switch}",
        "max_persona_updates": f"Empty: the server's {limits.persona_updates.limit}. {switch}",
        "persona_update_window_s": f"Empty: the server's {limits.persona_updates.seconds:g}. {switch}",
        "tokens_per_day": "Prompts and output of both engines together. Empty: no limit.",
        "max_out": f"Empty: the server's {settings.ENV.CHAT_MAX_OUT}.",
    }


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """A key. Its personas are a field of the form: the admin takes no many-to-many with a table of its own."""

    allowed_personas: forms.ModelMultipleChoiceField = forms.ModelMultipleChoiceField(  # type: ignore[type-arg]
        queryset=None,
        required=False,
        label="Personas",
        widget=UnfoldAdminSelect2MultipleWidget,
        help_text="What this key may use. Empty: every enabled persona.",
    )

    class Meta:
        model = ApiKey
        fields = ("name", "note", "expires_at", *LIMIT_FIELDS, "allow_own_chat_prompt", "allow_own_tool_prompt")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, text in _defaults().items():
            if name in self.fields:  # none of them in the eyes of staff that may only look
                self.fields[name].help_text = text
        personas = self.fields.get("allowed_personas")
        if isinstance(personas, forms.ModelMultipleChoiceField):
            personas.queryset = apps.get_model("personas.Persona")._default_manager.all()
            if not self.instance._state.adding:
                self.initial["allowed_personas"] = list(self.instance.personas.all())

    def _save_m2m(self) -> None:
        super()._save_m2m()  # type: ignore[misc]
        if "allowed_personas" in self.cleaned_data:
            self.instance.personas.set(self.cleaned_data["allowed_personas"])


class RotateForm(forms.Form):
    """How long the secret before a rotation stays good."""

    old_valid_until = forms.SplitDateTimeField(
        required=False,
        label="The old secret stays valid until",
        widget=UnfoldAdminSplitDateTimeWidget,
        help_text="UTC. Empty: the old secret ends at once, and connections that use it are closed.",
    )

    @staticmethod
    def tomorrow() -> dict[str, Any]:
        """What the form starts with."""
        return {"old_valid_until": timezone.now().replace(second=0, microsecond=0) + timedelta(days=1)}

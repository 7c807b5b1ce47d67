"""The forms of the key pages: a key with its limits and rights, and a rotation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelect2MultipleWidget, UnfoldAdminSplitDateTimeWidget

from accounts.defaults import default_limits
from accounts.login import OwnPasswordField, check_own_password
from accounts.models import LIMIT_FIELDS, ApiKey
from personas.models import Persona

RIGHTS = ("allow_own_chat_prompt", "allow_own_tool_prompt", "may_read_metrics")


def _limit_help() -> dict[str, str]:
    """Help texts that name the server's own limits, by field."""
    limits = default_limits(settings.ENV)
    off = "0 switches this limit off."
    return {
        "max_connections": "Empty: limited by the server's connection slots alone.",
        "max_messages": f"Empty: the server's {limits.messages.limit}. {off}",
        "message_window_s": f"Empty: the server's {limits.messages.seconds:g}. {off}",
        "max_cancels": f"Empty: the server's {limits.cancels.limit}. {off}",
        "cancel_window_s": f"Empty: the server's {limits.cancels.seconds:g}. {off}",
        "max_persona_updates": f"Empty: the server's {limits.persona_updates.limit}. {off}",
        "persona_update_window_s": f"Empty: the server's {limits.persona_updates.seconds:g}. {off}",
        "tokens_per_day": "Prompts and output of both engines together. Empty: no limit.",
        "max_out": f"Empty: the server's {settings.ENV.CHAT_MAX_OUT}.",
    }


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """An issued key. ``allowed_personas`` is a form field: the admin edits no relation that has its own model."""

    allowed_personas: forms.ModelMultipleChoiceField = forms.ModelMultipleChoiceField(  # type: ignore[type-arg]
        queryset=None,
        required=False,
        label="Personas",
        widget=UnfoldAdminSelect2MultipleWidget,
        help_text="Personas that this key may use. Empty: every enabled persona.",
    )

    class Meta:
        model = ApiKey
        fields = ("name", "note", "expires_at", *LIMIT_FIELDS, *RIGHTS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, text in _limit_help().items():
            if name in self.fields:  # staff with the right to view alone get no fields
                self.fields[name].help_text = text
        personas = self.fields.get("allowed_personas")
        if isinstance(personas, forms.ModelMultipleChoiceField):
            personas.queryset = Persona.objects.all()
            if not self.instance._state.adding:
                self.initial["allowed_personas"] = list(self.instance.personas.all())

    def is_multipart(self) -> bool:
        """Return True: large percent-encoded forms are refused (``yapserver.http_limits``)."""
        return True

    def _save_m2m(self) -> None:
        super()._save_m2m()  # type: ignore[misc]
        if "allowed_personas" in self.cleaned_data:
            self.instance.personas.set(self.cleaned_data["allowed_personas"])


class NewApiKeyForm(ApiKeyForm):
    """A key to issue. ``request`` is set on a subclass, one for each request."""

    request: HttpRequest
    own_password = OwnPasswordField()

    def clean(self) -> dict[str, Any] | None:
        """Check the operator's password last, so that a form with other errors costs no attempt."""
        cleaned: dict[str, Any] | None = super().clean()
        if not self.errors:
            _check_password_field(self, self.request)
        return cleaned


class RotateForm(forms.Form):
    """When the secret before a rotation ends."""

    old_valid_until = forms.SplitDateTimeField(
        required=False,
        label="The old secret stays valid until",
        widget=UnfoldAdminSplitDateTimeWidget,
        help_text="UTC. Empty: the old secret ends at once, and its connections are closed.",
    )
    own_password = OwnPasswordField()

    def __init__(self, request: HttpRequest, data: Any = None) -> None:
        tomorrow = timezone.now().replace(second=0, microsecond=0) + timedelta(days=1)
        super().__init__(data, initial={"old_valid_until": tomorrow})
        self._request = request

    def clean(self) -> dict[str, Any] | None:
        """Check the operator's password last, so that a form with other errors costs no attempt."""
        cleaned: dict[str, Any] | None = super().clean()
        if not self.errors:
            _check_password_field(self, self._request)
        return cleaned


def _check_password_field(form: forms.BaseForm, request: HttpRequest) -> None:
    try:
        check_own_password(request, form.cleaned_data["own_password"])
    except forms.ValidationError as error:
        form.add_error("own_password", error)

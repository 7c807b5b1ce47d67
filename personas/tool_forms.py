"""Forms of tools and their examples: the change forms and the import page."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminTextareaWidget

from personas.text_fields import MultilineField
from personas.tool_files import MAX_FILE_BYTES, read_lines
from personas.tool_models import Tool, ToolExample, example_key
from personas.upload_form import UploadForm, sentence


class ToolForm(forms.ModelForm):  # type: ignore[type-arg]
    """A tool. Empty parameters mean a plain signal."""

    class Meta:
        model = Tool
        fields = ("name", "description", "parameters", "enabled", "is_global", "personas")
        field_classes = {"description": MultilineField}

    def clean_parameters(self) -> dict[str, Any]:
        """An empty field is stored as an empty object."""
        value: dict[str, Any] = self.cleaned_data.get("parameters") or {}
        return value


class ToolExampleForm(forms.ModelForm):  # type: ignore[type-arg]
    """One labelled line."""

    class Meta:
        model = ToolExample
        fields = ("text", "tool", "history", "group", "note")
        field_classes = {"text": MultilineField, "history": MultilineField}

    def clean(self) -> dict[str, Any]:
        """Refuse a line that is stored already: ``key`` is no field of the form, so Django does not look."""
        cleaned = super().clean() or self.cleaned_data
        if "text" in cleaned:
            same = ToolExample.objects.filter(key=example_key(cleaned["text"], cleaned.get("history", "")))
            if same.exclude(pk=self.instance.pk).exists():
                self.add_error("text", "This line is stored already.")
        return cleaned


class ExampleImportForm(UploadForm):
    """Labelled lines as a file or as pasted text."""

    file = forms.FileField(
        label="File",
        required=False,
        help_text="CSV with the columns text and tool (history and group if there are any), or JSONL; at most 16 MiB.",
        widget=UnfoldAdminFileFieldWidget,
    )
    pasted = forms.CharField(
        label="Or pasted lines",
        required=False,
        strip=False,
        help_text="One line each: the text, =>, and the tool. Nothing behind the text: the line wants no tool.",
        widget=UnfoldAdminTextareaWidget,
    )

    def clean(self) -> dict[str, Any]:
        """Read either source and add ``lines``, a list of :class:`personas.tool_services.LabelledLine`."""
        cleaned = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        pasted = cleaned.get("pasted") or ""
        try:
            if cleaned.get("file"):
                if pasted.strip():
                    raise ValidationError("Give a file or pasted lines, not both.")
                content, name = self.read(MAX_FILE_BYTES).decode("utf-8-sig"), cleaned["file"].name
            else:
                content, name = pasted, ""
            cleaned["lines"] = read_lines(content, name)
            if not cleaned["lines"]:
                raise ValidationError("There are no lines.")
        except UnicodeDecodeError:
            self.add_error("file", "The file is not UTF-8 text.")
        except ValueError as error:
            self.add_error(None, sentence(error))
        return cleaned

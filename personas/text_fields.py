"""The form field of every multi-line text: line ends as ``\\n``, as the database keeps them."""

from __future__ import annotations

from typing import Any

from django import forms

from personas.card_prompt import unix_lines


class MultilineField(forms.CharField):
    """Text with ``\\n`` line ends. Browsers send ``\\r\\n``, so an unchanged textarea would otherwise be a change."""

    def to_python(self, value: Any) -> Any:
        return super().to_python(unix_lines(value) if isinstance(value, str) else value)

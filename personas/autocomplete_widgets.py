"""Autocomplete fields of the admin that refuse any posted value as a form error.

Django 5.2 asks the database for the posted keys while the form is shown again, and answers with status 500 where a
value is no key at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.admin.widgets import AutocompleteSelect, AutocompleteSelectMultiple

NO_KEY = "0"  # of no row: the form says that this is no choice
MAX_KEY_DIGITS = 18  # the largest key of a database has 19


def key_of(value: str) -> str:
    """Return a posted value that can be a key, else :data:`NO_KEY`."""
    return value if not value or (value.isascii() and value.isdigit() and len(value) <= MAX_KEY_DIGITS) else NO_KEY


class OneRow(AutocompleteSelect):
    """Chooses one row."""

    def value_from_datadict(self, data: Mapping[str, Any], files: Any, name: str) -> str | None:
        """Return the posted key; None where none was posted."""
        value = super().value_from_datadict(data, files, name)
        return None if value is None else key_of(str(value))


class SeveralRows(AutocompleteSelectMultiple):
    """Chooses any number of rows."""

    def value_from_datadict(self, data: Mapping[str, Any], files: Any, name: str) -> list[str]:
        """Return the posted keys."""
        return [key_of(str(value)) for value in super().value_from_datadict(data, files, name) or ()]

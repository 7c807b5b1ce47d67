"""The base of every import form: one file, read within a size limit."""

from __future__ import annotations

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.files.uploadedfile import UploadedFile
from unfold.widgets import UnfoldAdminFileFieldWidget


class UploadForm(forms.Form):
    """A form with a file."""

    file = forms.FileField(widget=UnfoldAdminFileFieldWidget)

    def read(self, limit: int) -> bytes:
        """Return the uploaded bytes. Raises ``ValueError``, before reading, where there are more than ``limit``."""
        upload = self.cleaned_data["file"]
        assert isinstance(upload, UploadedFile)
        if (upload.size or 0) > limit:
            raise ValueError(f"the file is larger than {limit // 2**20} MiB")
        return bytes(upload.read())


def sentence(error: ValueError) -> str:
    """Return the reason of an error as a sentence."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def one_line(error: ValidationError) -> str:
    """Return all messages of a ``ValidationError`` in one line, each with the name of its field."""
    if not hasattr(error, "error_dict"):
        return "; ".join(error.messages)
    return "; ".join(
        message if field == NON_FIELD_ERRORS else f"{field}: {message}"
        for field, messages in error.message_dict.items()
        for message in messages
    )

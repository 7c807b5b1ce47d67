"""What every import page begins with: a file, read within bounds."""

from __future__ import annotations

from django import forms
from django.core.files.uploadedfile import UploadedFile
from unfold.widgets import UnfoldAdminFileFieldWidget


class UploadForm(forms.Form):
    """A page that takes a file."""

    file = forms.FileField(widget=UnfoldAdminFileFieldWidget)

    def read(self, limit: int) -> bytes:
        """The uploaded bytes. Raises ``ValueError`` where there are more than ``limit``, before reading them."""
        upload = self.cleaned_data["file"]
        assert isinstance(upload, UploadedFile)
        if (upload.size or 0) > limit:
            raise ValueError(f"the file is larger than {limit // 2**20} MiB")
        return bytes(upload.read())


def sentence(error: ValueError) -> str:
    """The reason as a form shows it."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."

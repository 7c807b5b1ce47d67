"""Texts of phrase lists between the two steps of an import: kept in the database, one per user, for a day."""

from __future__ import annotations

import zlib
from datetime import timedelta

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.utils import timezone

from personas.models import PhraseUpload

KEPT = timedelta(days=1)


@transaction.atomic
def keep(user: AbstractBaseUser, source: str) -> PhraseUpload:
    """Keep a text for a user, in place of the one before. Expired texts of other users are deleted."""
    PhraseUpload.objects.filter(created__lt=timezone.now() - KEPT).delete()
    PhraseUpload.objects.filter(user_id=user.pk).delete()
    return PhraseUpload.objects.create(user_id=user.pk, data=zlib.compress(source.encode(), 1))


def find(user: AbstractBaseUser, number: str) -> str | None:
    """Return the text that this user uploaded under this number, or None."""
    if not number.isascii() or not number.isdecimal() or len(number) > 18:
        return None
    upload = PhraseUpload.objects.filter(pk=int(number), user_id=user.pk).first()
    return zlib.decompress(bytes(upload.data)).decode() if upload else None


def drop(user: AbstractBaseUser) -> None:
    """Delete the text of a user."""
    PhraseUpload.objects.filter(user_id=user.pk).delete()

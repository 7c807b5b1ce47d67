"""The verbs that write: keys."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.changes import announce
from accounts.keys import mint
from accounts.models import ApiKey


def issue_key(row: ApiKey) -> str:
    """Gives an unsaved row its secret and saves it. Returns the full key: the only time it can be read."""
    if not row._state.adding:
        raise ValueError("this key has been issued; rotate it for a new secret")
    minted = mint()
    row.prefix, row.hash = minted.prefix, minted.hash
    row.save(force_insert=True)
    announce("key", row.pk)
    return minted.full


@transaction.atomic
def create_key(name: str, **fields: Any) -> tuple[ApiKey, str]:
    """A new key and, once, its full text. ``fields`` are columns of :class:`ApiKey`, and ``personas`` a list of rows.

    Raises ``ValidationError``.
    """
    personas = fields.pop("personas", ())
    row = ApiKey(name=name, **fields)
    row.clean_fields(exclude={"prefix", "hash"})
    full = issue_key(row)
    row.personas.set(personas)
    return row, full


@transaction.atomic
def save_key(row: ApiKey) -> None:
    """Saves an edited key. Its secrets and its revocation are not an edit: those columns are left as they are."""
    columns = {field.name for field in row._meta.concrete_fields if field.editable and not field.primary_key}
    row.save(update_fields=columns)
    announce("key", row.pk)


@transaction.atomic
def revoke_key(row: ApiKey, now: datetime | None = None) -> bool:
    """Turns a key off for good. False where it already was."""
    when = now or timezone.now()
    if not ApiKey.objects.filter(pk=row.pk, revoked_at__isnull=True).update(revoked_at=when):
        return False
    row.revoked_at = when
    announce("key", row.pk)
    return True


@transaction.atomic
def rotate_key(row: ApiKey, old_valid_until: datetime | None = None) -> str:
    """A new secret beside the old one, which stays good until ``old_valid_until`` (None: not a moment longer).

    Returns the full key, once. A secret from an earlier rotation ends here. Raises ``ValueError`` for a revoked key.
    """
    current = ApiKey.objects.select_for_update().get(pk=row.pk)
    if current.revoked_at is not None:
        raise ValueError("a revoked key cannot be rotated")
    minted = mint(current.prefix)
    keep = old_valid_until is not None and old_valid_until > timezone.now()
    row.previous_hash, row.previous_until = (current.hash, old_valid_until) if keep else ("", None)
    row.hash = minted.hash
    row.save(update_fields=("hash", "previous_hash", "previous_until"))
    announce("key", row.pk)
    return minted.full

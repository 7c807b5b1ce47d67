"""Writes of API keys: issue, edit, revoke, rotate, delete. Every one announces the key after the commit."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.keys import mint
from accounts.models import ApiKey
from personas.changes import announce


def issue_key(row: ApiKey) -> str:
    """Give an unsaved row its secret and save it.

    Returns:
        The full key. This is the only time that it can be read.

    Raises:
        ValueError: The row was saved before.
    """
    if not row._state.adding:
        raise ValueError("this key has been issued; rotate it for a new secret")
    minted = mint()
    row.prefix, row.hash = minted.prefix, minted.hash
    row.save(force_insert=True)
    announce("key", row.pk)
    return minted.full


@transaction.atomic
def create_key(name: str, **fields: Any) -> tuple[ApiKey, str]:
    """Create a key.

    Args:
        fields: Columns of :class:`ApiKey`, and ``personas``, a list of rows.

    Returns:
        The row and, once, the full key.

    Raises:
        ValidationError: A field is invalid.
    """
    personas = fields.pop("personas", ())
    row = ApiKey(name=name, **fields)
    row.clean_fields(exclude={"prefix", "hash"})
    full = issue_key(row)
    row.personas.set(personas)
    return row, full


@transaction.atomic
def save_key(row: ApiKey) -> None:
    """Save an edited key. Columns that no form edits (secrets, revocation) keep what the database has."""
    columns = {field.name for field in row._meta.concrete_fields if field.editable and not field.primary_key}
    row.save(update_fields=columns)
    announce("key", row.pk)


@transaction.atomic
def revoke_key(row: ApiKey, now: datetime | None = None) -> bool:
    """Revoke a key for good. Returns False where it was revoked before."""
    when = now or timezone.now()
    if not ApiKey.objects.filter(pk=row.pk, revoked_at__isnull=True).update(revoked_at=when):
        return False
    row.revoked_at = when
    announce("key", row.pk)
    return True


@transaction.atomic
def rotate_key(row: ApiKey, old_valid_until: datetime | None = None) -> str:
    """Give a key a new secret. A secret from an earlier rotation ends here.

    Args:
        old_valid_until: When the current secret ends; None or a past time: now.

    Returns:
        The full key. This is the only time that it can be read.

    Raises:
        ValueError: The key is revoked.
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


@transaction.atomic
def delete_keys(rows: Iterable[ApiKey]) -> int:
    """Delete keys. Their connections end; usage rows stay. Returns how many there were."""
    idents = [row.pk for row in rows]
    deleted = ApiKey.objects.filter(pk__in=idents).count()
    ApiKey.objects.filter(pk__in=idents).delete()
    for ident in idents:
        announce("key", ident)
    return deleted


def purge_revoked_keys(before: datetime) -> int:
    """Delete keys that were revoked before a time. Returns how many."""
    return delete_keys(ApiKey.objects.filter(revoked_at__lt=before))

"""What is told when personas or phrases change: a number in the database, and one call after the commit.

Explicit, not signals: every verb that writes ends with :func:`catalogue_changed`.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction
from django.db.models import F

from personas.models import CatalogueVersion

Announce = Callable[[str, str], None]


def _nobody(_topic: str, _detail: str) -> None:
    """Nobody listens: a management command, a test."""


_announce: Announce = _nobody


def use(announce: Announce | None) -> None:
    """Registers who is told (the composition root's part); None: nobody."""
    global _announce
    _announce = announce or _nobody


def catalogue_changed() -> None:
    """Raises the catalogue's version in this transaction and calls ``announce("catalogue", "")`` once it is committed.

    The row is locked from here to the commit, so versions are committed in their order.
    """
    with transaction.atomic():
        if not CatalogueVersion.objects.filter(pk=1).update(number=F("number") + 1):
            CatalogueVersion.objects.get_or_create(pk=1)
            CatalogueVersion.objects.filter(pk=1).update(number=F("number") + 1)
        transaction.on_commit(lambda: _announce("catalogue", ""))

"""Announces changes of keys, personas and phrase lists after their commit, and numbers those of the catalogue.

Explicit calls, not Django signals: every service that writes ends with :func:`announce` or :func:`catalogue_changed`.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction
from django.db.models import F

from personas.models import CatalogueVersion

Listener = Callable[[str, str], None]
"""``(topic, detail)``: ``("key", "<row id>")`` or ``("catalogue", "")``."""


def _ignore(_topic: str, _detail: str) -> None:
    """The listener of a process that serves no conversation: a management command, a test."""


_listener: Listener = _ignore


def use(listener: Listener | None) -> None:
    """Set the function that is called after every change, from the thread that made it. None: no function."""
    global _listener
    _listener = listener or _ignore


def announce(topic: str, detail: int | str) -> None:
    """Call the listener once this transaction is committed."""
    transaction.on_commit(lambda: _listener(topic, str(detail)))


def catalogue_changed() -> None:
    """Raise the catalogue's version in this transaction and announce ``("catalogue", "")`` once it is committed.

    The row is locked from here to the commit, so versions are committed in their order.
    """
    with transaction.atomic():
        if not CatalogueVersion.objects.filter(pk=1).update(number=F("number") + 1):
            CatalogueVersion.objects.get_or_create(pk=1)
            CatalogueVersion.objects.filter(pk=1).update(number=F("number") + 1)
        announce("catalogue", "")

"""One call after the commit of every change to a key. Explicit, not signals: the verbs that write end with it."""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction

Announce = Callable[[str, str], None]


def _nobody(_topic: str, _detail: str) -> None:
    """Nobody listens: a management command, a test."""


_announce: Announce = _nobody


def use(announce: Announce | None) -> None:
    """Registers who is told (the composition root's part); None: nobody."""
    global _announce
    _announce = announce or _nobody


def announce(topic: str, ident: int | str) -> None:
    """Tells ``(topic, ident)`` once this transaction is committed; ``("key", "<id>")`` for a key."""
    transaction.on_commit(lambda: _announce(topic, str(ident)))

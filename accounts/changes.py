"""Announces every committed change to a key. Services call :func:`announce` themselves; there are no signals."""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction

Announce = Callable[[str, str], None]


def _ignore(_topic: str, _detail: str) -> None:
    """Used where no process serves: a management command, a test."""


_announce: Announce = _ignore


def use(announce: Announce | None) -> None:
    """Register the listener of this process; None removes it. The composition root calls this."""
    global _announce
    _announce = announce or _ignore


def announce(topic: str, ident: int | str) -> None:
    """Call the listener with ``(topic, ident)`` after the commit of this transaction; ``("key", "<id>")`` for a key."""
    transaction.on_commit(lambda: _announce(topic, str(ident)))

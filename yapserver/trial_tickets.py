"""Tickets of the "Try it" page: a key for ten minutes, signed by the server and stored nowhere.

A ticket is good for one persona, on the WebSocket alone, as long as the operator who got it is active staff with the
right to view personas. Usage is counted under the prefix ``try``.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core import signing

from accounts.callers import Caller, Limits, Window
from accounts.keys import TICKET_START, TRY_PREFIX, hash_key

LIFETIME = timedelta(minutes=10)
PERMISSION = "personas.view_persona"
CONNECTIONS = 8
TOKENS_PER_DAY = 500_000
_MESSAGES = Window(60, 60.0)  # more than a key's default: an operator who tries a persona interrupts often

# Every character of a ticket may stand in a `Sec-WebSocket-Protocol` header.
_signer = signing.TimestampSigner(salt="accounts.tickets", sep=".")


def mint(user_id: int, persona: str) -> str:
    """Make a ticket.

    Args:
        user_id: Primary key of the operator.
        persona: Slug of the one persona that the ticket admits.

    Returns:
        The ticket, valid for :data:`LIFETIME` from now.
    """
    return TICKET_START + _signer.sign_object({"user": user_id, "persona": persona})


def is_ticket(key: str) -> bool:
    """Whether a key has the form of a ticket, valid or not."""
    return key.startswith(TICKET_START)


def find_caller(key: str, defaults: Limits) -> Caller | None:
    """The caller of a ticket; None where it is forged, expired, or its operator may no longer view personas."""
    caller = _read(key, defaults)
    return caller if caller is not None and operator_may_try(caller) else None


def operator_may_try(caller: Caller) -> bool:
    """Whether the operator behind a ticket is still active staff who may view personas. A few queries."""
    staff = get_user_model()._default_manager.filter(is_active=True, is_staff=True)
    user = staff.filter(pk=caller.operator_id).first() if caller.operator_id is not None else None
    return user is not None and user.has_perm(PERMISSION)


def _read(key: str, defaults: Limits) -> Caller | None:
    """The caller, where signature and age are good. No query."""
    try:
        signed = key.removeprefix(TICKET_START)
        payload: dict[str, Any] = _signer.unsign_object(signed, max_age=LIFETIME)
        since = signing.b62_decode(signed.rsplit(".", 2)[1])
    except (signing.BadSignature, ValueError):
        return None
    limits = replace(
        defaults, messages=_MESSAGES, cancels=_MESSAGES, connections=CONNECTIONS, tokens_per_day=TOKENS_PER_DAY
    )
    return Caller(
        key_id=None,
        prefix=TRY_PREFIX,
        name="Try it",
        limits=limits,
        personas=frozenset({payload["persona"]}),
        own_chat_prompt=False,
        own_tool_prompt=False,
        expires_at=since + LIFETIME.total_seconds(),
        fingerprint=hash_key(key),
        operator_id=payload["user"],
    )

"""Tickets: a key for a few minutes, for the page on which staff try a persona. Signed by the server, stored nowhere.

A ticket is good for one persona and one operator, who must still be there and allowed to look at personas when it is
used; a conversation begun with one ends with it. What is said is counted under the prefix ``try``.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core import signing

from accounts.callers import Caller, Limits, Window
from accounts.keys import TRY_PREFIX, hash_key

MARK = f"{TRY_PREFIX}."
LIFETIME = timedelta(minutes=10)
PERMISSION = "personas.view_persona"
CONNECTIONS = 8
TOKENS_PER_DAY = 500_000
_LEAST_MESSAGES = Window(60, 60.0)  # somebody who tries a persona interrupts it often

# Every character of a ticket may stand in a `Sec-WebSocket-Protocol` header.
_signer = signing.TimestampSigner(salt="accounts.tickets", sep=".")


def mint(user_id: int, persona: str) -> str:
    """A ticket for this operator and the persona with this slug, good for :data:`LIFETIME`."""
    return MARK + _signer.sign_object({"user": user_id, "persona": persona})


def is_ticket(key: str) -> bool:
    """Whether this is meant as a ticket, good or not."""
    return key.startswith(MARK)


def read(key: str, defaults: Limits) -> tuple[int, Caller] | None:
    """The operator's id and the caller, where the signature and its age are good. No query."""
    try:
        signed = key.removeprefix(MARK)
        told: dict[str, Any] = _signer.unsign_object(signed, max_age=LIFETIME)
        since = signing.b62_decode(signed.rsplit(".", 2)[1])
    except (signing.BadSignature, ValueError):
        return None
    limits = replace(
        defaults, messages=_LEAST_MESSAGES, cancels=_LEAST_MESSAGES, connections=CONNECTIONS,
        tokens_per_day=TOKENS_PER_DAY,
    )  # fmt: skip
    return told["user"], Caller(
        key_id=None,
        prefix=TRY_PREFIX,
        name="Try it",
        limits=limits,
        personas=frozenset({told["persona"]}),
        own_chat_prompt=False,
        own_tool_prompt=False,
        expires_at=since + LIFETIME.total_seconds(),
        fingerprint=hash_key(key),
    )


def find_caller_sync(key: str, defaults: Limits) -> Caller | None:
    """The caller of a ticket, or None: forged, too old, or its operator may no longer look at personas."""
    found = read(key, defaults)
    if found is None:
        return None
    user_id, caller = found
    user = get_user_model()._default_manager.filter(pk=user_id, is_active=True, is_staff=True).first()
    return caller if user is not None and user.has_perm(PERMISSION) else None


async def find_caller(key: str, defaults: Limits) -> Caller | None:
    """The same on an event loop."""
    found = read(key, defaults)
    if found is None:
        return None
    user_id, caller = found
    user = await get_user_model()._default_manager.filter(pk=user_id, is_active=True, is_staff=True).afirst()
    return caller if user is not None and await user.ahas_perm(PERMISSION) else None

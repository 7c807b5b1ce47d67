"""Reads of keys: the caller of a key, its use today, and keys that may be deleted. For threads, never for the loop."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import F, Q, QuerySet, Sum
from django.utils import timezone

from accounts.callers import Caller, Limits, Window
from accounts.keys import ENV_PREFIX, hash_key, prefix_of, same
from accounts.models import LIMIT_FIELDS, ApiKey, Usage

_COLUMNS = (
    "pk",
    "name",
    "prefix",
    "hash",
    "previous_hash",
    "previous_until",
    "expires_at",
    "revoked_at",
    *LIMIT_FIELDS,
    "allow_own_chat_prompt",
    "allow_own_tool_prompt",
    "may_read_metrics",
    "personas__slug",  # a left join: one row per persona, or one with None
)
_CHUNK = 500  # keys in one query
_Row = dict[str, Any]


def find_caller(key: str, defaults: Limits, text_api_key: str | None) -> Caller | None:
    """The caller of a key, with one query at most; None where the key is unknown, revoked or expired."""
    if text_api_key and same(key, text_api_key):
        return env_caller(defaults)
    prefix = prefix_of(key)
    if prefix is None:
        return None
    rows = ApiKey.objects.filter(prefix=prefix).order_by().values(*_COLUMNS)
    return _caller(rows, hash_key(key), defaults, timezone.now())


def callers_now(callers: Iterable[Caller], defaults: Limits) -> dict[Caller, Caller | None]:
    """Return each caller of the database as its key is now. One query for each 500 keys.

    A secret that was rotated away counts until its time is over, which ``Caller.fingerprint`` decides.

    Returns:
        For each caller a new one, or None: the key was revoked, has expired or is gone.
    """
    asked = list(callers)
    rows: dict[int, list[_Row]] = {}
    ids = sorted({caller.key_id for caller in asked if caller.key_id is not None})
    for first in range(0, len(ids), _CHUNK):
        for row in ApiKey.objects.filter(pk__in=ids[first : first + _CHUNK]).order_by().values(*_COLUMNS):
            rows.setdefault(row["pk"], []).append(row)
    now = timezone.now()
    return {
        caller: _caller(rows.get(caller.key_id or 0, ()), caller.fingerprint or None, defaults, now) for caller in asked
    }


def tokens_today(prefix: str, now: float) -> int:
    """Return the tokens that a key has used since midnight UTC, as far as they are written. ``now``: Unix seconds."""
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    sums = Usage.objects.filter(key_prefix=prefix, bucket__gte=midnight).aggregate(
        total=Sum(F("prompt_tokens") + F("completion_tokens") + F("tool_prompt_tokens") + F("tool_completion_tokens"))
    )
    return int(sums["total"] or 0)


def deletable_keys() -> QuerySet[ApiKey]:
    """Keys whose deletion leaves no usage unexplained: never used, or revoked for longer than usage is kept."""
    kept_since = timezone.now() - timedelta(days=settings.ENV.USAGE_KEEP_DAYS)
    return ApiKey.objects.filter(Q(last_used_at__isnull=True) | Q(revoked_at__lt=kept_since))


def env_caller(defaults: Limits) -> Caller:
    """Return the caller of ``TEXT_API_KEY``."""
    return Caller(key_id=None, prefix=ENV_PREFIX, name="TEXT_API_KEY", limits=defaults, may_read_metrics=True)


def _caller(rows: Iterable[_Row], fingerprint: str | None, defaults: Limits, now: datetime) -> Caller | None:
    """The caller of these rows of one key. ``fingerprint`` None stands for the current secret."""
    rows = list(rows)
    if not rows:
        return None
    row = rows[0]
    ends = [row["expires_at"]] if row["expires_at"] else []
    if fingerprint is None:
        fingerprint = row["hash"]
    elif not same(fingerprint, row["hash"]):
        if not row["previous_hash"] or not same(fingerprint, row["previous_hash"]):
            return None
        ends.append(row["previous_until"])
    if row["revoked_at"] or any(end <= now for end in ends):
        return None
    slugs = frozenset(row["personas__slug"] for row in rows if row["personas__slug"] is not None)
    return Caller(
        key_id=row["pk"],
        prefix=row["prefix"],
        name=row["name"],
        limits=_limits(row, defaults),
        personas=slugs or None,
        own_chat_prompt=row["allow_own_chat_prompt"],
        own_tool_prompt=row["allow_own_tool_prompt"],
        may_read_metrics=row["may_read_metrics"],
        expires_at=min(ends).timestamp() if ends else None,
        fingerprint=fingerprint,
    )


def _limits(row: _Row, defaults: Limits) -> Limits:
    def own(name: str, default: Any) -> Any:
        return default if row[name] is None else row[name]

    def window(limit: str, seconds: str, default: Window) -> Window:
        return Window(own(limit, default.limit), float(own(seconds, default.seconds)))

    return Limits(
        messages=window("max_messages", "message_window_s", defaults.messages),
        cancels=window("max_cancels", "cancel_window_s", defaults.cancels),
        persona_updates=window("max_persona_updates", "persona_update_window_s", defaults.persona_updates),
        connections=own("max_connections", defaults.connections),
        tokens_per_day=own("tokens_per_day", defaults.tokens_per_day),
        max_out=own("max_out", defaults.max_out),
    )

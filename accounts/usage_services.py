"""The verbs that write: usage. Batches are added up, old rows are moved into coarser ones, the oldest are removed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction
from django.db.models import F, Q

from accounts.histogram import add
from accounts.models import ApiKey, Period, Usage
from accounts.usage import COUNTERS, UsageKey, UsageSum

_CHUNK = 500
_Identity = tuple[datetime, str, str]


def write_usage(sums: Mapping[UsageKey, UsageSum], last_used: Mapping[int, float]) -> None:
    """:func:`record_usage` for a thread that has no request around it: leaves no connection behind."""
    try:
        record_usage(sums, last_used)
    finally:
        connection.close()


@transaction.atomic
def record_usage(sums: Mapping[UsageKey, UsageSum], last_used: Mapping[int, float]) -> None:
    """Adds minutes and notes when keys (by id, Unix seconds) were last used. One transaction, all or nothing."""
    _add_rows(
        Period.MINUTE,
        {(datetime.fromtimestamp(key.minute, UTC), key.key_prefix, key.persona): each for key, each in sums.items()},
    )
    for key_id, seconds in sorted(last_used.items()):
        when = datetime.fromtimestamp(seconds, UTC)
        earlier = Q(last_used_at__isnull=True) | Q(last_used_at__lt=when)
        ApiKey.objects.filter(earlier, pk=key_id).update(last_used_at=when)


def roll_up(
    now: datetime,
    keep_minutes: timedelta = timedelta(hours=48),
    keep_hours: timedelta = timedelta(days=31),
    keep_days: timedelta = timedelta(days=400),
) -> dict[str, int]:
    """Moves minutes older than ``keep_minutes`` into hours, those into days, and removes days older than ``keep_days``.

    May run at any time and any number of times. Returns the rows moved or removed, by what they were. Raises
    ``ValueError`` where the dashboard (an hour by minutes, a day by hours) would lose what it shows.
    """
    if keep_minutes < timedelta(hours=1) or keep_hours < timedelta(days=1) or keep_days < keep_hours:
        raise ValueError("keep at least an hour of minutes and a day of hours, and days no shorter than hours")
    now = now.astimezone(UTC)
    hours = _fold(Period.MINUTE, Period.HOUR, now - keep_minutes)
    days = _fold(Period.HOUR, Period.DAY, now - keep_hours)
    removed, _ = Usage.objects.filter(period=Period.DAY, bucket__lt=now - keep_days).delete()
    return {Period.MINUTE.value: hours, Period.HOUR.value: days, Period.DAY.value: removed}


def _fold(source: Period, target: Period, before: datetime) -> int:
    moved = 0
    while count := _fold_chunk(source, target, before):
        moved += count
    return moved


@transaction.atomic
def _fold_chunk(source: Period, target: Period, before: datetime) -> int:
    old = Usage.objects.select_for_update().filter(period=source, bucket__lt=before)
    rows = list(old.order_by("bucket", "key_prefix", "persona")[:_CHUNK])
    sums: dict[_Identity, UsageSum] = {}
    for row in rows:
        start = row.bucket.astimezone(UTC).replace(minute=0)
        if target == Period.DAY:
            start = start.replace(hour=0)
        sums.setdefault((start, row.key_prefix, row.persona), UsageSum()).add(sum_of(row))
    _add_rows(target, sums)
    Usage.objects.filter(pk__in=[row.pk for row in rows]).delete()
    return len(rows)


def sum_of(row: Usage) -> UsageSum:
    """A row's counts."""
    result = UsageSum(ttft=add(row.ttft))
    result.counts.update({name: getattr(row, name) for name in COUNTERS})
    result.errors.update(row.errors)
    return result


def _add_rows(period: Period, sums: Mapping[_Identity, UsageSum]) -> None:
    """Inserts what is missing, which locks what is there, and adds. Everywhere in one order: writers never deadlock."""
    ordered = dict(sorted(sums.items()))
    Usage.objects.bulk_create(
        [Usage(period=period, bucket=bucket, key_prefix=key, persona=slug) for bucket, key, slug in ordered],
        # Not `ignore_conflicts`: it takes no lock on PostgreSQL, and on SQLite hides broken constraints too.
        update_conflicts=True,
        unique_fields=("bucket", "period", "key_prefix", "persona"),
        update_fields=("persona",),
        batch_size=_CHUNK // 10,
    )
    if ordered:
        buckets, keys, slugs = (set(part) for part in zip(*ordered, strict=True))
        rows = Usage.objects.filter(period=period, bucket__in=buckets, key_prefix__in=keys, persona__in=slugs)
        for row in rows:
            more = ordered.get((row.bucket, row.key_prefix, row.persona))
            if more is not None:
                _add_row(row, more)


def _add_row(row: Usage, more: UsageSum) -> None:
    changes: dict[str, object] = {name: F(name) + count for name, count in more.counts.items() if count}
    if more.errors:
        changes["errors"] = {
            code: row.errors.get(code, 0) + more.errors.get(code, 0) for code in sorted({*row.errors, *more.errors})
        }
    if any(more.ttft):
        changes["ttft"] = add(row.ttft, more.ttft)
    if changes:
        Usage.objects.filter(pk=row.pk).update(**changes)

"""The verbs that write usage: add batches, move old rows into coarser ones, remove the oldest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from accounts.histogram import add
from accounts.models import ApiKey, Period, Usage, UsageWriter
from accounts.usage import COUNTERS, UsageBatch, UsageKey, UsageSum

_CHUNK = 500
_Identity = tuple[datetime, str, str]


@transaction.atomic
def write_batch(batch: UsageBatch) -> None:
    """Write a batch, unless it has been written: a first attempt may have been carried out and its answer lost."""
    now = timezone.now()
    earlier = UsageWriter.objects.filter(pk=batch.writer, batch__lt=batch.number)
    if not earlier.update(batch=batch.number, written_at=now):
        # A row that is missing is made, and locks out a second attempt that runs at the same time.
        defaults = {"batch": batch.number, "written_at": now}
        if not UsageWriter.objects.get_or_create(pk=batch.writer, defaults=defaults)[1]:
            return
    record_usage(batch.sums, batch.last_used)


@transaction.atomic
def record_usage(sums: Mapping[UsageKey, UsageSum], last_used: Mapping[int, float]) -> None:
    """Add minutes, and note when keys (by row id, in Unix seconds) were last used. One transaction."""
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
    """Move minutes older than ``keep_minutes`` into hours, those into days, and remove days older than ``keep_days``.

    May run at any time and any number of times.

    Returns:
        Rows moved or removed, by their period.

    Raises:
        ValueError: The dashboard (an hour by minutes, a day by hours) would lose rows that it shows.
    """
    if keep_minutes < timedelta(hours=1) or keep_hours < timedelta(days=1) or keep_days < keep_hours:
        raise ValueError("keep at least an hour of minutes and a day of hours, and days no shorter than hours")
    now = now.astimezone(UTC)
    hours = _fold(Period.MINUTE, Period.HOUR, now - keep_minutes)
    days = _fold(Period.HOUR, Period.DAY, now - keep_hours)
    removed, _ = Usage.objects.filter(period=Period.DAY, bucket__lt=now - keep_days).delete()
    UsageWriter.objects.filter(written_at__lt=now - keep_days).delete()
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
    """Return the counts of a row."""
    result = UsageSum(ttft=add(row.ttft))
    result.counts.update({name: getattr(row, name) for name in COUNTERS})
    result.errors.update(row.errors)
    return result


def _add_rows(period: Period, sums: Mapping[_Identity, UsageSum]) -> None:
    """Insert missing rows, which locks existing ones, and add. One order everywhere: writers never deadlock."""
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

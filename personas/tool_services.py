"""Verbs that write tools, examples and classifier heads. A change of what is served raises the catalogue version."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from personas.changes import catalogue_changed
from personas.tool_files import LabelledLine
from personas.tool_models import HeadState, Tool, ToolExample, ToolHead, example_key

MAX_STORED_EXAMPLES = 100_000
# Training runs on one thread, in time that no other process wants (SCHED_IDLE): `nice` alone moved the streams' gaps.
_LOWEST = ("chrt", "--idle", "0") if shutil.which("chrt") else ("nice", "-n", "19")
TRAINING_PREFIX = ("env", "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", *_LOWEST)
TRAINING_LIMIT = timedelta(minutes=30)  # a run without a result after this counts as dead
KEPT_HEADS = 20  # older retired and failed versions are deleted


# -- tools -----------------------------------------------------------------------------------------


def tool_changed(tool: Tool, added: bool = False) -> None:
    """Raise the version of a tool whose row was written (not of a new one), and announce the change."""
    if not added:
        Tool.objects.filter(pk=tool.pk).update(version=F("version") + 1)
        tool.refresh_from_db(fields=["version"])
    catalogue_changed()


@transaction.atomic
def set_tools_enabled(tools: QuerySet[Tool], enabled: bool) -> list[Tool]:
    """Enable or disable these tools; return those that changed."""
    changed = list(tools.filter(enabled=not enabled))
    if changed:
        Tool.objects.filter(pk__in=[tool.pk for tool in changed]).update(
            enabled=enabled, version=F("version") + 1, updated=timezone.now()
        )
        catalogue_changed()
    return changed


@transaction.atomic
def delete_tools(tools: QuerySet[Tool]) -> None:
    """Delete these tools with their examples."""
    tools.delete()
    catalogue_changed()


# -- examples --------------------------------------------------------------------------------------


@transaction.atomic
def import_examples(lines: Iterable[LabelledLine]) -> tuple[int, int]:
    """Add labelled lines; a line that is stored already gets the new label.

    Returns:
        (added, relabelled).

    Raises:
        ValidationError: A tool is not known, a line is not valid, or there would be too many.
    """
    tools = {tool.name: tool for tool in Tool.objects.all()}
    new: dict[str, ToolExample] = {}
    for line in lines:
        if line.tool and line.tool not in tools:
            raise ValidationError(f"There is no tool {line.tool!r}: add the tool first.")
        example = ToolExample(
            text=line.text, history=line.history, tool=tools.get(line.tool), group=line.group,
            key=example_key(line.text, line.history),
        )  # fmt: skip
        example.clean_fields(exclude=["key"])
        new[example.key] = example
    present = {e.key: e for e in ToolExample.objects.filter(key__in=list(new))} if len(new) < 500 else _all_by_key()
    fresh = [example for key, example in new.items() if key not in present]
    if ToolExample.objects.count() + len(fresh) > MAX_STORED_EXAMPLES:
        raise ValidationError(f"At most {MAX_STORED_EXAMPLES} examples are stored.")
    ToolExample.objects.bulk_create(fresh, batch_size=500)
    relabelled = [
        present[key] for key, example in new.items() if key in present and present[key].tool_id != example.tool_id
    ]
    for stored in relabelled:
        stored.tool = new[stored.key].tool
        stored.save(update_fields=["tool", "updated"])
    return len(fresh), len(relabelled)


def _all_by_key() -> dict[str, ToolExample]:
    return {example.key: example for example in ToolExample.objects.all()}


def add_example(text: str, tool: str, history: str = "") -> ToolExample:
    """Add one labelled line, or relabel it. Raises ``ValidationError``."""
    import_examples([LabelledLine(text, tool, history)])
    return ToolExample.objects.get(key=example_key(text, history))


# -- heads -----------------------------------------------------------------------------------------


def begin_training() -> ToolHead:
    """Store a run that is about to start.

    Raises:
        ValidationError: A run is in progress.
    """
    with transaction.atomic():
        ToolHead.objects.filter(state=HeadState.TRAINING, created__lt=timezone.now() - TRAINING_LIMIT).update(
            state=HeadState.FAILED, error="The run ended without a result."
        )
        if ToolHead.objects.select_for_update().filter(state=HeadState.TRAINING).exists():
            raise ValidationError("A training run is in progress.")
        return ToolHead.objects.create()


def start_training_process(manage: Path) -> ToolHead:
    """Start ``manage.py train_tool`` in a process of its own, at the lowest priority. Returns the run at once.

    The process is detached: it outlives a restart of the server and takes nothing of its memory.
    """
    head = begin_training()
    command = [*TRAINING_PREFIX, sys.executable, str(manage), "train_tool", "--run", str(head.pk)]
    try:
        subprocess.Popen(
            command,
            cwd=manage.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        fail_training(head.pk, f"The process could not be started: {error}")
    return head


def finish_training(number: int, data: bytes, meta: Mapping[str, Any]) -> ToolHead:
    """Store the result of a run; the head waits for acceptance.

    Args:
        number: the run.
        data: the head as ``.npz``.
        meta: ``classes`` (names of the tools), ``encoder``, ``feature_version``, ``threshold``, ``details``.
    """
    details = dict(meta["details"])
    ToolHead.objects.filter(pk=number, state__in=(HeadState.TRAINING, HeadState.FAILED)).update(
        state=HeadState.CANDIDATE,
        data=data,
        classes=list(meta["classes"]),
        encoder=meta["encoder"] or "",
        feature_version=meta["feature_version"],
        threshold=meta["threshold"],
        trained_threshold=meta["threshold"],
        accuracy=details.get("accuracy"),
        recall=details.get("recall"),
        false_alarms=details.get("false_alarms"),
        details=details,
        error="",
        finished=timezone.now(),
    )
    _forget_old()
    return ToolHead.objects.get(pk=number)


def fail_training(number: int, reason: str) -> None:
    """Store why a run has no result."""
    ToolHead.objects.filter(pk=number, state=HeadState.TRAINING).update(
        state=HeadState.FAILED, error=reason[:500], finished=timezone.now()
    )


@transaction.atomic
def accept_head(number: int) -> ToolHead:
    """Put a head in force, in place of the one before. Also brings an old one back.

    Raises:
        ValidationError: The run has no result.
    """
    head = ToolHead.objects.select_for_update().get(pk=number)
    if not head.data or head.state in (HeadState.TRAINING, HeadState.FAILED):
        raise ValidationError("This run has no result that could be put in force.")
    ToolHead.objects.filter(state=HeadState.IN_FORCE).exclude(pk=number).update(state=HeadState.RETIRED)
    ToolHead.objects.filter(pk=number).update(state=HeadState.IN_FORCE)
    catalogue_changed()
    head.refresh_from_db()
    return head


@transaction.atomic
def retire_head() -> None:
    """Take the head in force out of force: decisions are those of the tool model, where one is deployed."""
    if ToolHead.objects.filter(state=HeadState.IN_FORCE).update(state=HeadState.RETIRED):
        catalogue_changed()


@transaction.atomic
def set_threshold(number: int, threshold: float) -> ToolHead:
    """Change the probability from which a head calls a tool. Raises ``ValidationError``."""
    if not 0 < threshold < 1:  # NaN included
        raise ValidationError("The threshold must be between 0 and 1.")
    head = ToolHead.objects.select_for_update().get(pk=number)
    head.threshold = threshold
    head.clean_fields()
    head.save(update_fields=["threshold"])
    if head.state == HeadState.IN_FORCE:
        catalogue_changed()
    return head


def _forget_old() -> None:
    old: Sequence[int] = list(
        ToolHead.objects.filter(state__in=(HeadState.RETIRED, HeadState.FAILED, HeadState.CANDIDATE))
        .order_by("-pk")
        .values_list("pk", flat=True)[KEPT_HEADS:]
    )
    ToolHead.objects.filter(pk__in=old).delete()

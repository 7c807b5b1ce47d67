"""Reads of tools, examples and the head in force."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import orjson

from personas.tool_files import LabelledLine
from personas.tool_models import HeadState, Tool, ToolExample, ToolHead
from personas.tool_snapshot import ToolHeadSnapshot, ToolSnapshot

DEMO_EXAMPLES = Path(__file__).parent / "demo_tool" / "examples.csv"
DEMO_HEAD = Path(__file__).parent / "demo_tool" / "head.npz"


def load_tools() -> tuple[ToolSnapshot, ...]:
    """Return every enabled tool, sorted by name. Two queries."""
    slugs: dict[int, set[str]] = defaultdict(set)
    for tool_id, slug in Tool.personas.through.objects.values_list("tool_id", "persona__slug"):
        slugs[tool_id].add(slug)
    return tuple(
        ToolSnapshot(
            name=tool.name,
            description=tool.description,
            parameters=orjson.dumps(tool.parameters).decode() if has_parameters(tool) else None,
            personas=None if tool.is_global else frozenset(slugs[tool.pk]),
        )
        for tool in Tool.objects.filter(enabled=True).order_by("name")
    )


def has_parameters(tool: Tool) -> bool:
    """Whether a call of the tool needs arguments."""
    return bool(tool.parameters and tool.parameters.get("properties"))


def load_head() -> ToolHeadSnapshot | None:
    """Return the head in force, or None. One query."""
    head = ToolHead.objects.filter(state=HeadState.IN_FORCE).only("pk", "data", "threshold").first()
    return None if head is None else ToolHeadSnapshot(head.pk, bytes(head.data), head.threshold)


def labelled_lines() -> Iterator[LabelledLine]:
    """Yield every example whose tool is enabled, and every line that wants none, in the order they were added."""
    for example in ToolExample.objects.order_by("pk").select_related("tool").iterator():
        tool = example.tool
        if tool is None or tool.enabled:
            yield LabelledLine(example.text, tool.name if tool else "", example.history, example.group)

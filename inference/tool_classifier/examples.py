"""Labelled lines in the form that training and evaluation take."""

from __future__ import annotations

import re
from dataclasses import dataclass

from personas.tool_files import LabelledLine

_LABEL = re.compile(r"^(?:user|assistant)\s*:\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled line.

    Attributes:
        text: the line to decide on.
        tool: name of the tool that it wants, empty for none.
        earlier: the lines before it, oldest first, without speakers' labels.
        group: lines of one meaning share a group; empty where groups are not known.
    """

    text: str
    tool: str = ""
    earlier: tuple[str, ...] = ()
    group: str = ""


def example_of(line: LabelledLine) -> Example:
    """The example that a stored or imported line stands for."""
    return Example(line.text, line.tool, earlier_lines(line.history), line.group)


def earlier_lines(history: str) -> tuple[str, ...]:
    """The texts of a ``User: …`` / ``Assistant: …`` history; a line without a label belongs to the line above."""
    texts: list[str] = []
    for line in history.splitlines():
        label = _LABEL.match(line)
        text = line[label.end() if label else 0 :].strip()
        if label or not texts:
            texts.append(text)
        elif text:
            texts[-1] = f"{texts[-1]} {text}"
    return tuple(text for text in texts if text)

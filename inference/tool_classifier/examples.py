"""Labelled lines: what the classifier is trained on and measured with, read from CSV, JSONL or pasted text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

MAX_EXAMPLES = 100_000
MAX_FILE_CHARS = 64 * 1024 * 1024
MAX_TEXT_CHARS = 4000
MAX_EARLIER = 20
_SPEAKER = re.compile(r"^(?:user|assistant)\s*:\s*", re.IGNORECASE)
_NONE = {"", "none", "no", "false", "0", "-", "null"}
_TEXT_KEYS = ("text", "line", "utterance", "user_utterance", "message")
_HISTORY_KEYS = ("history", "history_text", "earlier", "context")
_TOOL_KEYS = ("tool", "label", "wanted")


class BadExamples(ValueError):
    """Labelled lines cannot be read. The message names the line."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled line.

    Attributes:
        text: the line to decide on.
        tool: name of the tool that it wants, empty for none.
        earlier: the lines before it, oldest first, without speakers' labels.
        group: lines of one meaning share a group; empty where groups are not known.
        split: ``train``, ``heldout`` or empty.
    """

    text: str
    tool: str = ""
    earlier: tuple[str, ...] = ()
    group: str = ""
    split: str = ""


def earlier_lines(history: str) -> tuple[str, ...]:
    """The lines of a ``User: …`` / ``Assistant: …`` history without their labels, the last few of them."""
    lines: list[str] = []
    for line in history.splitlines():
        if not line.strip():
            continue
        label = _SPEAKER.match(line)
        if label or not lines:
            lines.append(line[label.end() if label else 0 :].strip())
        else:
            lines[-1] = f"{lines[-1]} {line.strip()}"
    return tuple(line for line in lines if line)[-MAX_EARLIER:]


def read_examples(content: str, kind: str, default_tool: str = "take_screenshot") -> list[Example]:
    """Read labelled lines.

    Args:
        content: the file's text, or what was pasted.
        kind: ``csv`` (a header with at least ``text`` and ``tool``), ``jsonl`` (an object a line: ``text`` or ``turns``,
            and ``tool``), or ``lines`` (``text``, a tab or ``=>``, and the tool; nothing behind it for none).
        default_tool: the tool that a bare yes (``yes``, ``true``, ``1``) stands for.

    Raises:
        BadExamples: a line cannot be read, or there are too many.
    """
    if len(content) > MAX_FILE_CHARS:
        raise BadExamples(f"the file has more than {MAX_FILE_CHARS} characters")
    readers = {"csv": _csv_rows, "jsonl": _json_rows, "lines": _plain_rows}
    found: list[Example] = []
    for number, row in readers[kind](content.removeprefix("\ufeff")):
        found.append(_example(row, number, default_tool))
        if len(found) > MAX_EXAMPLES:
            raise BadExamples(f"more than {MAX_EXAMPLES} lines")
    return found


def kind_of(name: str, content: str) -> str:
    """The format of a file or of pasted text, for :func:`read_examples`."""
    if name.lower().endswith((".jsonl", ".ndjson", ".json")) or content.lstrip()[:1] == "{":
        return "jsonl"
    first = content.lstrip("\ufeff").split("\n", 1)[0].lower()
    columns = {column.strip().strip('"') for column in first.split(",")}
    return "csv" if columns & set(_TEXT_KEYS) and columns & set(_TOOL_KEYS) else "lines"


def _csv_rows(content: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(content, newline=""))
    names = {name.strip().lower() for name in reader.fieldnames or ()}
    if not names & set(_TEXT_KEYS) or not names & set(_TOOL_KEYS):
        raise BadExamples("the first line must name the columns, among them text and tool")
    try:
        for row in reader:
            yield reader.line_num, {str(key).strip().lower(): value for key, value in row.items() if key is not None}
    except csv.Error as error:
        raise BadExamples(f"line {reader.line_num}: {error}") from None


def _json_rows(content: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadExamples(f"line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise BadExamples(f"line {number}: not a JSON object")
        yield number, row


def _plain_rows(content: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            text, _, tool = line.partition("\t") if "\t" in line else line.partition("=>")
            yield number, {"text": text, "tool": tool}


def _example(row: Mapping[str, Any], number: int, default_tool: str) -> Example:
    earlier: tuple[str, ...]
    turns = row.get("turns") or row.get("messages")
    if turns is not None:
        lines = _turns(turns, number)
        text, earlier = lines[-1], tuple(lines[:-1])
    else:
        text = next((row[key] for key in _TEXT_KEYS if row.get(key)), "")
        history = next((row[key] for key in _HISTORY_KEYS if row.get(key)), "")
        earlier = earlier_lines(history) if isinstance(history, str) else tuple(_turns(history, number))
    if not isinstance(text, str) or not text.strip():
        raise BadExamples(f"line {number}: no text")
    if len(text) > MAX_TEXT_CHARS:
        raise BadExamples(f"line {number}: more than {MAX_TEXT_CHARS} characters")
    tool = next((row[key] for key in _TOOL_KEYS if key in row), "")
    return Example(
        text=text.strip(),
        tool=_tool(tool, number, default_tool),
        earlier=tuple(line[-MAX_TEXT_CHARS:] for line in earlier[-MAX_EARLIER:]),
        group=str(row.get("group") or ""),
        split=str(row.get("split") or ""),
    )


def _turns(turns: Any, number: int) -> Sequence[str]:
    """The texts of a list of texts or of ``{"role", "content"}`` objects."""
    if not isinstance(turns, list) or not turns:
        raise BadExamples(f"line {number}: turns are not a list")
    texts = [turn.get("content", turn.get("text")) if isinstance(turn, dict) else turn for turn in turns]
    if not all(isinstance(text, str) for text in texts):
        raise BadExamples(f"line {number}: a turn is not a text")
    return [_SPEAKER.sub("", text, count=1).strip() for text in texts]


def _tool(value: Any, number: int, default_tool: str) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return default_tool
    name = str(value).strip()
    if name.lower() in _NONE:
        return ""
    if name.lower() in ("yes", "true", "1"):
        return default_tool
    if not re.fullmatch(r"[A-Za-z_][\w.-]{0,63}", name):
        raise BadExamples(f"line {number}: {name[:64]!r} is not the name of a tool")
    return name

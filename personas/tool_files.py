"""Labelled lines as files: CSV, JSONL and pasted text, read and written. No Django."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

MAX_FILE_BYTES = 16 * 2**20
MAX_LINES = 100_000
MAX_TEXT_CHARS = 4000
MAX_HISTORY_CHARS = 20_000
COLUMNS = ("group", "split", "language", "history", "text", "tool")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_TEXT_KEYS = ("text", "line", "utterance", "user_utterance", "message")
_HISTORY_KEYS = ("history", "history_text", "earlier", "context")
_TOOL_KEYS = ("tool", "label", "wanted")
_NO = {"", "none", "no", "false", "0", "-", "null"}
_YES = {"yes", "true", "1"}


class BadLines(ValueError):
    """Labelled lines cannot be read. The message names the line."""


@dataclass(frozen=True, slots=True)
class LabelledLine:
    """One labelled line.

    Attributes:
        text: the line to decide on.
        tool: name of the tool that it wants; empty for none.
        history: the lines before it, as ``User: …`` / ``Assistant: …``, oldest first.
        group: lines of one meaning share a group; empty where groups are not known.
        split: ``train``, ``heldout`` or empty.
    """

    text: str
    tool: str = ""
    history: str = ""
    group: str = ""
    split: str = ""


def read_lines(content: str, name: str = "", default_tool: str = "take_screenshot") -> list[LabelledLine]:
    """Read labelled lines.

    Three forms are read: CSV with a header that has at least ``text`` and ``tool``; JSONL, an object a line with
    ``text`` (and ``history``) or ``turns``, and ``tool``; or plain lines, each a text, then a tab or ``=>`` and the
    tool.

    Args:
        content: the file's text.
        name: the file's name; its ending decides between the forms where it is known.
        default_tool: the tool that a bare ``yes``, ``true`` or ``1`` stands for.

    Raises:
        BadLines: a line cannot be read, or there are too many.
    """
    content = content.removeprefix("\ufeff")
    found: list[LabelledLine] = []
    for number, row in _rows(content, name.lower()):
        found.append(_labelled(row, number, default_tool))
        if len(found) > MAX_LINES:
            raise BadLines(f"more than {MAX_LINES} lines")
    return found


def dump_csv(lines: Iterable[LabelledLine]) -> str:
    """Labelled lines as CSV that :func:`read_lines` reads back."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("group", "history", "text", "tool"))
    writer.writerows((line.group, line.history, line.text, line.tool) for line in lines)
    return out.getvalue()


def dump_jsonl(lines: Iterable[LabelledLine]) -> str:
    """Labelled lines as JSONL that :func:`read_lines` reads back."""
    rows = ({"text": line.text, "tool": line.tool, "history": line.history, "group": line.group} for line in lines)
    return "".join(f"{orjson.dumps(row).decode()}\n" for row in rows)


def _rows(content: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if name.endswith((".jsonl", ".ndjson")) or content.lstrip()[:1] == "{":
        return _json_rows(content)
    columns = {column.strip().strip('"').lower() for column in content.split("\n", 1)[0].split(",")}
    if name.endswith(".csv") or (columns & set(_TEXT_KEYS) and columns & set(_TOOL_KEYS)):
        return _csv_rows(content)
    return _plain_rows(content)


def _csv_rows(content: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(content, newline=""))
    try:
        names = {name.strip().lower() for name in reader.fieldnames or ()}
        if not names & set(_TEXT_KEYS) or not names & set(_TOOL_KEYS):
            raise BadLines("the first line must name the columns, among them text and tool")
        for row in reader:
            yield reader.line_num, {key.strip().lower(): value for key, value in row.items() if key is not None}
    except csv.Error as error:
        raise BadLines(f"line {reader.line_num}: {error}") from None


def _json_rows(content: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadLines(f"line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise BadLines(f"line {number}: not a JSON object")
        yield number, row


def _plain_rows(content: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            text, _, tool = line.partition("\t") if "\t" in line else line.rpartition("=>")
            if not text:  # no separator: rpartition leaves everything at the end
                text, tool = tool, ""
            yield number, {"text": text, "tool": tool}


def _labelled(row: Mapping[str, Any], number: int, default_tool: str) -> LabelledLine:
    turns = row.get("turns") or row.get("messages")
    text: Any
    if turns is not None:
        spoken = _turns(turns, number)
        text, history = spoken[-1][1], _history(spoken[:-1])
    else:
        text = next((row[key] for key in _TEXT_KEYS if row.get(key)), "")
        before = next((row[key] for key in _HISTORY_KEYS if row.get(key)), "")
        history = before if isinstance(before, str) else _history(_turns(before, number))
    if not isinstance(text, str) or not text.strip():
        raise BadLines(f"line {number}: no text")
    if len(text) > MAX_TEXT_CHARS or len(history) > MAX_HISTORY_CHARS:
        raise BadLines(
            f"line {number}: a text has at most {MAX_TEXT_CHARS} characters, its history {MAX_HISTORY_CHARS}"
        )
    tool = next((row[key] for key in _TOOL_KEYS if key in row), "")
    return LabelledLine(
        text=text.strip(),
        tool=_tool(tool, number, default_tool),
        history=history.strip(),
        group=str(row.get("group") or "").strip()[:100],
        split=str(row.get("split") or "").strip(),
    )


def _turns(turns: Any, number: int) -> list[tuple[str, str]]:
    """(speaker, text) of texts or of ``{"role", "content"}`` objects; the last turn is the user's."""
    if not isinstance(turns, list) or not turns:
        raise BadLines(f"line {number}: turns are not a list")
    found: list[tuple[str, str]] = []
    for position, turn in enumerate(turns):
        speaker = "User" if (len(turns) - position) % 2 else "Assistant"
        text = turn
        if isinstance(turn, dict):
            text = turn.get("content", turn.get("text"))
            speaker = "Assistant" if turn.get("role", speaker.lower()) == "assistant" else "User"
        if not isinstance(text, str):
            raise BadLines(f"line {number}: a turn is not a text")
        label = re.match(r"(user|assistant)\s*:\s*", text, re.IGNORECASE)
        if label:
            speaker, text = label[1].capitalize(), text[label.end() :]
        found.append((speaker, " ".join(text.split())))
    return found


def _history(turns: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{speaker}: {text}" for speaker, text in turns if text)


def _tool(value: Any, number: int, default_tool: str) -> str:
    name = "" if value is None else str(value).strip()
    if name.lower() in _NO:
        return ""
    if name.lower() in _YES:
        return default_tool
    if not _NAME.fullmatch(name):
        raise BadLines(f"line {number}: {name[:64]!r} is not the name of a tool")
    return name

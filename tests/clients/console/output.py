"""Lines for a person at a terminal, the same without decoration for a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import orjson


def is_terminal() -> bool:
    """Whether a person is looking at stdout."""
    return sys.stdout.isatty()


def in_colour() -> bool:
    """Whether stdout shows colours, and is meant to (https://no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def json_line(value: dict[str, Any]) -> None:
    """One JSON object on one line."""
    print(orjson.dumps(value).decode(), flush=True)


def ms(value: float | None) -> str:
    """A duration of ``value`` milliseconds to read: `87 ms`, `1.24 s`; `–` for none."""
    if value is None:
        return "–"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn on a terminal, aligned columns in a pipe. The first column is text, the others numbers."""
    if is_terminal():
        from rich import box
        from rich.console import Console
        from rich.table import Table

        drawn = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
        for index, name in enumerate(head):
            drawn.add_column(name, justify="left" if index == 0 else "right")
        for row in rows:
            drawn.add_row(*row)
        Console(highlight=False, markup=False).print(drawn)
        return
    if title:
        print(title)
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    for row in [head, *rows]:
        cells = [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


def checked(ok: bool, what: str) -> bool:
    """One verified thing as a line; returns ``ok``."""
    mark = "ok  " if ok else "FAIL"
    if in_colour():
        mark = "\x1b[32m✓\x1b[0m   " if ok else "\x1b[31m✗\x1b[0m   "
    print(f"{mark} {what}", flush=True)
    return ok

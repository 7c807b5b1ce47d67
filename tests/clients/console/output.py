"""Output for a person at a terminal, and the same text without decoration for a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import orjson


def is_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()


def in_colour() -> bool:
    """Return whether stdout is a terminal with colours; NO_COLOR switches colours off (no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def json_line(value: dict[str, Any]) -> None:
    """Print one JSON object on one line."""
    print(orjson.dumps(value).decode(), flush=True)


def ms(value: float | None) -> str:
    """Format a duration: `87 ms`, `1.24 s`.

    Args:
        value: milliseconds; None becomes an en dash.
    """
    if value is None:
        return "–"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.2f} s"


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: drawn on a terminal, aligned columns in a pipe.

    Args:
        title: text above the table; empty: none.
        head: column titles.
        rows: cells; the first column is aligned left, the others right.
    """
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
    """Print the result of one check.

    Args:
        ok: whether the check passed.
        what: the thing that was checked.

    Returns:
        `ok`.
    """
    mark = "ok  " if ok else "FAIL"
    if in_colour():
        mark = "\x1b[32m✓\x1b[0m   " if ok else "\x1b[31m✗\x1b[0m   "
    print(f"{mark} {what}", flush=True)
    return ok

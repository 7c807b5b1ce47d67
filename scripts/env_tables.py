"""Write the variable tables of README.md from `yapserver/env.py`.

    .venv/bin/python scripts/env_tables.py            # rewrite README.md
    .venv/bin/python scripts/env_tables.py --check    # exit status 1 if README.md is not current

A table stands between `<!-- variables: SECTION -->` and `<!-- end of variables -->`. SECTION is the text of a comment
`# -- SECTION ---` in the class `Environment`; the table holds the fields below that comment, in their order.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from yapserver.env import BASE_DIR, Environment  # noqa: E402

README = ROOT / "README.md"
_SECTION = re.compile(r"^    # -- (.+?) -+$")
_FIELD = re.compile(r"^    ([A-Z][A-Z0-9_]+): ")
_TABLE = re.compile(r"(?P<head><!-- variables: (?P<section>.+?) -->\n).*?(?P<end><!-- end of variables -->)", re.DOTALL)


def sections() -> dict[str, list[str]]:
    """Read the section comments of `yapserver/env.py`.

    Returns:
        Section titles and the names of their variables, in the order of the file.

    Raises:
        ValueError: a field has no section, or the file's text and the class name different fields.
    """
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in (ROOT / "yapserver/env.py").read_text().splitlines():
        if title := _SECTION.match(line):
            names = found.setdefault(title[1], [])
        elif field := _FIELD.match(line):
            names.append(field[1])
    if sorted(name for names in found.values() for name in names) != sorted(Environment.model_fields):
        raise ValueError("yapserver/env.py: every field needs one section comment above")
    return found


def shown(value: object) -> str:
    """Format a default for a table cell; an en dash stands for None and for the empty string."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        return f"{value:.10g}"
    return f"`{value.relative_to(BASE_DIR) if isinstance(value, Path) else value}`"


def _markdown(rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines) + "\n"


def tables(names: list[str]) -> str:
    """Make the tables of one section.

    Args:
        names: the variables of the section.

    Returns:
        Markdown, line ends included. Variables that have `NAME_MIN` and `NAME_MAX` share a row with them, in a table of
        four columns; the others follow in a table of three.
    """
    fields = Environment.model_fields
    ranged = [name for name in names if f"{name}_MIN" in names and f"{name}_MAX" in names]
    bounds = {f"{name}{end}" for name in ranged for end in ("_MIN", "_MAX")}
    plain = [name for name in names if name not in ranged and name not in bounds]
    parts = []
    if ranged:
        rows = [
            (f"`{name}`", *(shown(fields[f"{name}{end}"].default) for end in ("", "_MIN", "_MAX"))) for name in ranged
        ]
        parts.append(_markdown([("variable", "default", "`…_MIN`", "`…_MAX`"), *rows]))
    if plain:
        rows = [(f"`{name}`", shown(fields[name].default), fields[name].description or "") for name in plain]
        parts.append(_markdown([("variable", "default", "meaning"), *rows]))
    return "\n".join(parts)


def with_tables(text: str) -> str:
    """Replace every table in a text.

    Args:
        text: README.md.

    Returns:
        The same text with current tables.

    Raises:
        ValueError: the marks in the text are not exactly the sections of `yapserver/env.py`.
    """
    known = sections()
    marked = [mark["section"] for mark in _TABLE.finditer(text)]
    if sorted(marked) != sorted(known):
        raise ValueError(f"README.md has tables for {sorted(marked)}, yapserver/env.py has sections {sorted(known)}")
    return _TABLE.sub(lambda mark: mark["head"] + tables(known[mark["section"]]) + mark["end"], text)


def main() -> int:
    """Run the command line; returns the exit status."""
    before = README.read_text()
    after = with_tables(before)
    if sys.argv[1:] == ["--check"]:
        if before == after:
            return 0
        print("README.md is not current: run .venv/bin/python scripts/env_tables.py", file=sys.stderr)
        return 1
    README.write_text(after)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The documents as tests read them: sections, tables and code blocks of Markdown."""

from __future__ import annotations

import re

from yapserver.env import BASE_DIR

README, ADVANCED, CHANGELOG = (BASE_DIR / name for name in ("README.md", "ADVANCED.md", "CHANGELOG.md"))
ARCHITECTURE, CONTRIBUTING, SECURITY = (
    BASE_DIR / f"{name}.md" for name in ("ARCHITECTURE", "CONTRIBUTING", "SECURITY")
)
DOCS = (README, ADVANCED, ARCHITECTURE, CONTRIBUTING, SECURITY, CHANGELOG, *sorted((BASE_DIR / "docker").rglob("*.md")))
BOTH = README.read_text() + ADVANCED.read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def inference_sources() -> str:
    """Return the source of `inference/` and `inference/protocol/`, which name frames, close codes and metrics."""
    folders = (BASE_DIR / "inference", BASE_DIR / "inference/protocol")
    return "".join(path.read_text() for folder in folders for path in sorted(folder.glob("*.py")))


def section(text: str, heading: str) -> str:
    """Return the text below a heading, up to the next heading of its level or above."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found, f"no heading {heading!r}"
    rest = text[found.end() :]
    following = re.search(rf"^#{{1,{len(found[1])}}} ", FENCE.sub(lambda m: " " * len(m[0]), rest), re.MULTILINE)
    return rest[: following.start()] if following else rest


def rows(text: str) -> list[list[str]]:
    """Return the rows of all tables in a text, without their heads."""
    body = re.sub(r"^\|.*\n\|-.*\n", "", text, flags=re.MULTILINE)
    lines = re.findall(r"^\|(.*)\|$", body, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def code(cell: str) -> str:
    """Return the text of a cell that is one piece of code."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    assert match, f"{cell!r} is not in backticks"
    return match[1]


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [body for name, body in FENCE.findall(text) if name == language]

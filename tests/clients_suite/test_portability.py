"""The clients run on a laptop: Python 3.10, four packages, nothing of the server."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients_suite.running import CLIENTS

LOCAL = {"websockets", "httpx", "orjson", "rich"}
OPTIONAL = {"plot.py": {"matplotlib"}}
FILES = sorted(CLIENTS.rglob("*.py"))
OURS = {path.stem for path in CLIENTS.iterdir()}


def imported(tree: ast.AST) -> Iterator[str]:
    """Return the top-level packages that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CLIENTS)))
def test_syntax_and_imports(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 10))
    foreign = set(imported(tree)) - OURS - set(sys.stdlib_module_names)
    assert foreign <= LOCAL | OPTIONAL.get(path.name, set())


def test_the_library_stands_alone() -> None:
    # The library can be copied, so it must not import the clients.
    found = {name for path in (CLIENTS / "yapclient").glob("*.py") for name in imported(ast.parse(path.read_text()))}
    assert found - set(sys.stdlib_module_names) == {"yapclient", "websockets", "orjson", "httpx"}


def test_what_is_required_is_what_is_imported() -> None:
    required = (CLIENTS.parent.parent / "requirements-local.in").read_text().splitlines()
    assert {line.split()[0] for line in required if line and not line.startswith("#")} == LOCAL

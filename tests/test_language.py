"""The language of code and documents, as far as a machine can check it: words, sentence length, Args sections."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("accounts", "inference", "personas", "yapserver", "scripts", "docker")
# Metaphors, and pronouns without a noun. A word is found in any letter case, also across a line break.
BANNED = (
    "anew", "whoever", "nobody", "nobody's", "somebody", "somebody's", "let go", "lets go", "is told",
    "was told", "are told", "were told", "shall", "comes to nothing", "came to nothing", "to and fro",
    "of its own accord", "shown the door", "shown the admission", "manieth",
)  # fmt: skip
MAX_WORDS = 30
# Kinds of files that are checked in all packages.
CHECKED = ("*.py", "*.sh", "*.html", "*.js", "*.md", "*.yml", "*.yaml", "Dockerfile")
DOCUMENTS = tuple(
    ROOT / name
    for name in ("README.md", "ADVANCED.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
)

_BANNED = re.compile("|".join(rf"\b{re.escape(words)}\b".replace(r"\ ", r"[\s#]+") for words in BANNED), re.IGNORECASE)
_POINTS = re.compile(r"(.+_)?(ids|position|positions)|.+_(ms|s)")


def product_files() -> list[Path]:
    """List the source files that are checked; migrations are history and stay as they are."""
    found = sorted(
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".sh", ".html", ".js", ".md", ".yml", ".yaml") or path.name == "Dockerfile"
        if not {"migrations", "__pycache__"} & set(path.parts)
    )
    return [path for path in found if any(path.relative_to(ROOT).match(pattern) for pattern in CHECKED)]


def python_prose(source: str) -> list[tuple[int, str]]:
    """Return the comments and string literals of a module: docstrings, messages, help texts.

    Returns:
        (line of its beginning, text) for each. Neighbouring comment lines are separate entries.
    """
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", None)}  # 3.12 splits f-strings
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [(token.start[0], token.string) for token in tokens if token.type in kinds]


def document_prose(text: str) -> str:
    """A document without code blocks, tables and comments."""
    text = re.sub(r"^```.*?^```$", "\n", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", "\n", text, flags=re.DOTALL)
    return re.sub(r"^\|.*\|$", "\n", text, flags=re.MULTILINE)


def sentences(text: str) -> Iterator[str]:
    """The sentences of a document; a heading, a list item and a paragraph end one. Inline code counts as one word."""
    text = re.sub(r"`[^`]+`", "CODE", document_prose(text))
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|(?<=\n)#+ .*\n", text):
        for sentence in re.split(r"(?<=[.!?:;])\**\s+", paragraph.strip()):
            if sentence:
                yield sentence


def words(sentence: str) -> int:
    """Count the words of a sentence; marks do not count."""
    return len(re.findall(r"[\w'’./…-]*\w[\w'’./…-]*", sentence))


def functions_without_sections(path: Path) -> list[str]:
    """Find public functions that take or return ids, positions or times without describing them.

    A parameter is described by an Args section, or by its name in backticks. A result is described by a Returns
    section, or by a docstring that begins with Return. "See :class:`X`" refers to a described protocol.

    Returns:
        One entry per function: line, name and the missing section.
    """
    found = []

    def visit(node: ast.AST, public: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                visit(child, public and not child.name.startswith("_"))
            elif (
                isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and public and not child.name.startswith("_")
            ):
                check(child)

    def check(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        doc = ast.get_docstring(function) or ""
        if doc.startswith("See :"):
            return
        names = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]
        if "Args:" not in doc and any(_POINTS.fullmatch(name) and f"`{name}`" not in doc for name in names):
            found.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name}: Args")
        decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
        if (
            _POINTS.fullmatch(function.name)
            and "property" not in decorators
            and not re.match(r"Return |(?s:.*)Returns:", doc)
        ):
            found.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name}: Returns")

    visit(ast.parse(path.read_text()), True)
    return found


def banned(path: Path) -> list[str]:
    """Return the banned words of a file, each with its line."""
    source = path.read_text()
    prose = python_prose(source) if path.suffix == ".py" else [(1, source)]
    return [
        f"{path.relative_to(ROOT)}:{line + text[: match.start()].count(chr(10))} {' '.join(match[0].split())}"
        for line, text in prose
        for match in _BANNED.finditer(text)
    ]


@pytest.mark.parametrize("path", [*product_files(), *DOCUMENTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_word(path: Path) -> None:
    assert banned(path) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_sentences_are_short(path: Path) -> None:
    long = [" ".join(sentence.split()) for sentence in sentences(path.read_text()) if words(sentence) > MAX_WORDS]
    assert long == []


def test_ids_positions_and_times_are_described() -> None:
    python = [path for path in product_files() if path.suffix == ".py"]
    assert [missing for path in python for missing in functions_without_sections(path)] == []


# -- the checks themselves -------------------------------------------------------------------------


def test_a_banned_word_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "a.py").write_text('x = 1\n\ndef f() -> None:\n    """The client is let\n    go."""  # Anew.\n')
    assert banned(tmp_path / "a.py") == ["a.py:4 let go", "a.py:5 Anew"]
    (tmp_path / "b.md").write_text("Fine.\n\nWhoever reads this, shallow or not.\n")
    assert banned(tmp_path / "b.md") == ["b.md:3 Whoever"]


def test_a_long_sentence_is_found() -> None:
    text = "# A heading\n\n" + "word " * 31 + "end. Short.\n\n```text\n" + "code " * 40 + "\n```\n\n- " + "item " * 29
    assert [words(sentence) for sentence in sentences(text)] == [2, 32, 1, 29]


def test_a_missing_section_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "a.py").write_text(
        "class A:\n    def cut(self, position: int) -> None: ...\n    def _cut(self, position: int) -> None: ...\n"
        'def chat_ids() -> list[int]:\n    """Make ids.\n\n    Returns:\n        Ids.\n    """\n'
        "def wait(timeout_s: float) -> None: ...\n"
    )
    assert functions_without_sections(tmp_path / "a.py") == ["a.py:2 cut: Args", "a.py:10 wait: Args"]

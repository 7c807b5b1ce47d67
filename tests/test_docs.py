"""Compares the documents with the code: tables in both directions, commands, links, versions, examples."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings
from django.urls import URLPattern, URLResolver, get_resolver

from inference.engines.sampling import SAMPLING_KEYS
from inference.protocol.decoder import MESSAGE_TYPES
from inference.protocol.errors import ALL_ERROR_CODES
from scripts.env_tables import shown, with_tables
from tests.documents import (
    ADVANCED,
    ARCHITECTURE,
    BOTH,
    CHANGELOG,
    DOCS,
    FENCE,
    README,
    blocks,
    code,
    rows,
    section,
)
from yapserver.env import BASE_DIR, Environment

# -- tables against code ---------------------------------------------------------------------------


def test_there_is_one_version() -> None:
    project = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]
    newest = re.search(r"^## (\d+\.\d+\.\d+)$", CHANGELOG.read_text(), re.MULTILINE)
    assert newest
    assert project["version"] == newest[1] == settings.VERSION == settings.SPECTACULAR_SETTINGS["VERSION"]
    named = re.findall(r"\bVERSION\b.*= *\"(\d+\.\d+\.\d+)\"", (BASE_DIR / "yapserver/settings.py").read_text())
    assert named == []


def test_the_variable_tables_are_current() -> None:
    text = README.read_text()
    assert with_tables(text) == text, "run .venv/bin/python scripts/env_tables.py"


def test_a_changed_description_makes_the_tables_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Environment.model_fields["PORT"], "description", "another text")
    assert "| `PORT` | 8000 | another text |" in with_tables(README.read_text())
    with pytest.raises(ValueError, match="has tables for"):
        with_tables(README.read_text().replace("<!-- variables: models -->", ""))


def test_every_variable_stands_in_the_readme_with_its_default() -> None:
    told: dict[str, str] = {}
    for cells in rows(section(README.read_text(), "Environment variables")):
        name = code(cells[0])
        assert name not in told, f"{name} twice"
        told[name] = cells[1]
        if len(cells) == 4:
            told |= {f"{name}_MIN": cells[2], f"{name}_MAX": cells[3]}
        else:
            assert len(cells) == 3
            assert cells[2]
    assert told == {name: shown(field.default) for name, field in Environment.model_fields.items()}


def test_the_scripts_read_no_variable_that_is_not_told() -> None:
    own = {
        "RUN_DIR",
        "YAP_CHECKOUT",
        "UV_DEFAULT_INDEX",
    }  # YAP_CHECKOUT is the mark of engine processes; UV_DEFAULT_INDEX belongs to uv
    for script in (BASE_DIR / "scripts").glob("*.sh"):
        read = set(re.findall(r"\$\{([A-Z_]{3,}):?-", script.read_text()))
        missing = {name for name in read - own if f"`{name}" not in BOTH}
        assert not missing, f"{script.name} reads {missing}"


def test_every_message_of_a_client_stands_in_the_readme() -> None:
    told = [code(cells[0]) for cells in rows(section(README.read_text(), "Client to server"))]
    assert sorted(told) == sorted(MESSAGE_TYPES)


def test_every_frame_of_the_server_stands_in_the_readme() -> None:
    told = [code(cells[0]) for cells in rows(section(README.read_text(), "Server to client"))]
    sources = "".join(
        path.read_text()
        for path in [*(BASE_DIR / "inference").glob("*.py"), *(BASE_DIR / "inference/protocol").glob("*.py")]
    )
    sent = set(re.findall(r"""(?<![.\w])(?:encode|self\._frame|_ack)\(\s*"(\w+)"|\{"type":"(\w+)\"""", sources))
    assert sorted(told) == sorted({"".join(names) for names in sent})


def test_every_error_code_stands_in_the_readme() -> None:
    told: list[str] = []
    for cells in rows(section(README.read_text(), "Errors")):
        name = code(cells[0])
        told += [name.replace("<key>", key) for key in SAMPLING_KEYS] if "<key>" in name else [name]
    assert sorted(told) == sorted(ALL_ERROR_CODES)


def test_every_close_code_stands_in_the_readme() -> None:
    told = {int(cells[0]): cells[2] for cells in rows(section(README.read_text(), "Close codes"))}
    settings = {
        field.default: f"`{name}`" for name, field in Environment.model_fields.items() if name.startswith("WS_CLOSE_")
    }
    sources = "".join(
        path.read_text()
        for path in [*(BASE_DIR / "inference").glob("*.py"), *(BASE_DIR / "inference/protocol").glob("*.py")]
    )
    constants = re.findall(r"^CLOSE_\w+(?:, CLOSE_\w+)* = ([\d, ]+)$", sources, re.MULTILINE)
    fixed = {int(number) for line in constants for number in line.split(",")}
    assert len(fixed) >= 3
    assert told == dict.fromkeys(fixed, "–") | settings


def _routes(resolver: URLResolver, before: str = "") -> Iterator[str]:
    for entry in resolver.url_patterns:
        path = before + str(entry.pattern)
        if path.startswith("admin/"):
            continue
        if isinstance(entry, URLPattern):
            yield f"/{path}"
        else:
            yield from _routes(entry, path)


def test_every_route_stands_in_the_readme() -> None:
    told = [code(cells[0]) for cells in rows(section(README.read_text(), "HTTP"))]
    assert sorted(told) == sorted([*_routes(get_resolver()), "/admin/"])


def test_every_series_of_metrics_stands_in_advanced() -> None:
    told = [code(cells[0]) for cells in rows(section(ADVANCED.read_text(), "Metrics"))]
    sources = "".join(path.read_text() for path in (BASE_DIR / "inference").rglob("*.py"))
    made = re.findall(r'(Counter|Gauge|Histogram)\(\s*"(yap_\w+)"', sources)
    assert sorted(told) == sorted(f"{name}_total" if kind == "Counter" else name for kind, name in made)


def test_every_setting_in_the_admin_stands_in_advanced() -> None:
    told: dict[str, list[str]] = {}
    lines = section(ADVANCED.read_text(), "Settings in the admin").splitlines()
    for number, line in enumerate(lines):
        head = re.match(r"\| of a ([\w ]+?) \|", line)
        if head:
            table = "\n".join(lines[number:]).split("\n\n")[0]
            told[head[1]] = [cells[0] for cells in rows(table)]
    labels = {"accounts.ApiKey": "key", "personas.Persona": "persona", "personas.PhraseList": "phrase list",
              "personas.Phrase": "phrase", "personas.Tool": "tool", "personas.ToolExample": "tool example"}  # fmt: skip
    for label, name in labels.items():
        meta = apps.get_model(label)._meta
        editable = [
            str(field.verbose_name)
            for field in (*meta.fields, *meta.many_to_many)
            if field.editable and not field.primary_key and (label, field.name) != ("personas.Phrase", "phrase_list")
        ]
        assert sorted(told[name]) == sorted(editable), label


def test_every_command_of_ours_stands_in_advanced() -> None:
    ours = {path.stem for path in BASE_DIR.glob("*/management/commands/[a-z]*.py")}
    told = {code(cells[0]).split()[1] for cells in rows(ADVANCED.read_text()) if cells[0].startswith("`manage.py ")}
    assert told == ours


# -- named things exist ---------------------------------------------------------------------------


def test_the_map_is_of_this_place() -> None:
    told = [
        name for cells in rows(section(README.read_text(), "The map")) for name in re.findall(r"`([^`]+)`", cells[0])
    ]
    for name in told:
        assert (BASE_DIR / name).is_dir() == name.endswith("/"), name
        assert (BASE_DIR / name).exists(), name
    tracked = {path.name for path in BASE_DIR.iterdir() if path.is_dir() and not path.name.startswith(".")}
    listed = subprocess.run(["git", "ls-files"], cwd=BASE_DIR, capture_output=True, text=True, check=True).stdout
    folders = {line.partition("/")[0] for line in listed.splitlines() if "/" in line} & tracked
    assert {f"{folder}/" for folder in folders} <= set(told)


def test_the_code_that_architecture_names_exists() -> None:
    named = 0
    for cells in rows(section(ARCHITECTURE.read_text(), "From behaviour to code")):
        for file, name in re.findall(r"`([\w/]+\.py)`(?:: `([\w.]+)`)?", cells[1]):
            tree = ast.parse((BASE_DIR / file).read_text())
            body: list[ast.stmt] = tree.body
            for part in filter(None, name.split(".")):
                found = [node for node in body if getattr(node, "name", None) == part]
                assert found, f"{file}: {name}"
                body = getattr(found[0], "body", [])
            named += 1
    assert named > 10


@pytest.mark.parametrize("document", DOCS, ids=lambda path: str(path.relative_to(BASE_DIR)))
def test_commands_and_files_that_are_named_exist(document: Path) -> None:
    text = document.read_text()
    for name in set(
        re.findall(r"(?<![\w/.-])((?:accounts|personas|scripts|tests|inference|yapserver|docker)/[\w./-]*\w)", text)
    ):
        assert (BASE_DIR / name).exists(), name
    for name in set(re.findall(r"python -m ([\w.]+)", text)) - {"pytest"}:
        assert (BASE_DIR / f"{name.replace('.', '/')}.py").exists(), name
    known = {*(path.stem for path in BASE_DIR.glob("*/management/commands/[a-z]*.py")),
             "changepassword", "check", "createsuperuser", "migrate", "runserver"}  # fmt: skip
    assert set(re.findall(r"manage\.py (\w+)", text)) <= known


def test_the_lines_of_trouble_are_the_ones_that_are_said() -> None:
    files = [path for room in ("scripts", "inference", "yapserver") for path in (BASE_DIR / room).rglob("*.*")]
    sources = "".join(path.read_text() for path in files if path.suffix in (".py", ".sh"))
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # one literal over several lines
    cells = [cells[0] for cells in rows(section(ADVANCED.read_text(), "Troubleshooting"))]
    lines = [found[1] for cell in cells if (found := re.match(r"`([^`]* [^`]*)`", cell))]
    assert len(lines) > 8
    for line in lines:
        for part in re.split("…|NAME=", line.removeprefix("yap: ")):
            assert part.strip() in sources, line


def test_flags_of_clients_and_benchmarks_exist() -> None:
    told = set(re.findall(r"--[a-z][a-z-]+", section(README.read_text(), "The command-line clients")))
    sources = "".join(path.read_text() for path in (BASE_DIR / "tests/clients").rglob("*.py"))
    generated = {"--help", *(f"--{key.replace('_', '-')}" for key in SAMPLING_KEYS)}
    assert not {flag for flag in told - generated if f'"{flag}"' not in sources}
    told = set(re.findall(r"--[a-z][a-z-]+", section(ADVANCED.read_text(), "Benchmarks")))
    sources = "".join(path.read_text() for path in (BASE_DIR / "tests/benchmarks").glob("*.py"))
    assert not {flag for flag in told if f'"{flag}"' not in sources}


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCS, ids=lambda path: str(path.relative_to(BASE_DIR)))
def test_links_resolve(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        name, _, anchor = target.partition("#")
        assert "://" not in name, f"{target}: nothing here depends on a page elsewhere"
        file = document.parent / name if name else document
        assert file.is_file(), target
        assert not anchor or anchor in _anchors(file.read_text()), target


@pytest.mark.parametrize("document", DOCS, ids=lambda path: str(path.relative_to(BASE_DIR)))
def test_nothing_of_the_place_where_this_was_written(document: Path) -> None:
    """Allow only served paths, common paths, example hosts and common programs."""
    text = document.read_text()
    ours = {path.strip("/").partition("/")[0] for path in _routes(get_resolver())} | {"ws", "v1", "tokenize", "admin"}
    common = {"srv", "etc", "dev", "data", "models"}
    typed = {"help", "stats"}  # commands of the live client
    roots = set(re.findall(r"(?<![\w.:/<>…}*-])/([a-z]\w*)", text))
    assert roots <= ours | common | typed
    assert "../" not in text
    hosts = set(re.findall(r"\w+://(?:[^\s/@`)]+@)?([^\s/:`)|,]+)", text))
    assert hosts <= {"127.0.0.1", "…", "host", "yap.example.com", "db.example.com", "redis.example.com"}
    programs = {"bash", "python", ".venv/bin/python", "pip", "export", "curl", "llm"}
    for block in blocks(text, "console"):
        for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
            words = [word for word in line.split() if not re.match(r"[A-Z_]+=", word)]
            if not line.startswith("TEXT_API_KEY=$("):
                assert words[0] in programs, line

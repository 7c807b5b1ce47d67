"""Which room may know which, read from the imports themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("accounts", "inference", "personas", "yapserver")
WEB = {"django", "channels", "rest_framework", "drf_spectacular", "daphne", "twisted", "asgiref", "unfold"}
# The edges of inference: what they have in common with Django or Channels is what they are for.
EDGES = {"access", "apps", "config_watcher", "consumer", "metrics_view", "session_registry", "urls", "views"}
MODULES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if "migrations" not in path.relative_to(ROOT).parts
)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offenders(of: str, forbidden: set[str], except_for: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """``module imports forbidden`` for every module whose name starts with ``of``."""
    return sorted(
        f"{name_of(path)} imports {imported}"
        for path in MODULES
        if name_of(path).split(".")[0] == of and name_of(path) not in except_for
        for imported in set(imports(path))
        if any(imported == name or imported.startswith(f"{name}.") for name in forbidden)
    )


def test_there_is_something_to_look_at() -> None:
    names = {name_of(path) for path in MODULES}
    assert {"inference.session", "inference.engines.vllm_engine", "yapserver.env", "accounts.models"} <= names
    assert "vllm" in set(imports(ROOT / "inference/engines/vllm_engine.py"))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("accounts", {"inference", "yapserver"}),
        ("personas", {"inference", "accounts", "yapserver"}),
        ("inference", {"yapserver"}),
    ],
)
def test_arrows_point_one_way(package: str, forbidden: set[str]) -> None:
    assert offenders(package, forbidden) == []


def test_only_the_edges_of_inference_know_the_web() -> None:
    edges = {
        name
        for path in MODULES
        if (name := name_of(path)).split(".")[0] == "inference" and name.split(".")[-1] in EDGES
    }
    assert offenders("inference", WEB, edges) == []


def test_the_heart_of_inference_knows_no_room_but_their_plain_parts() -> None:
    """Sessions, turns and prompts run without a database: of the other rooms they know frozen data and limits alone."""
    plain = {
        "accounts.callers", "accounts.limits", "accounts.token_budget", "accounts.usage", "accounts.connection_slots",
        "accounts.credentials", "personas.snapshot", "personas.macros",
    }  # fmt: skip
    for path in MODULES:
        name = name_of(path)
        if name.split(".")[0] == "inference" and name.split(".")[-1] not in EDGES:
            others = {found for found in imports(path) if found.split(".")[0] in ("accounts", "personas")}
            strange = {found for found in others if not any(found == p or found.startswith(f"{p}.") for p in plain)}
            assert strange <= {"accounts", "personas"}, f"{name} imports {strange}"
    for module in plain:
        path = ROOT / Path(*module.split(".")).with_suffix(".py")
        assert not {found.split(".")[0] for found in imports(path)} & WEB, module


def test_one_file_knows_vllm() -> None:
    for package in PACKAGES:
        assert offenders(package, {"vllm"}, {"inference.engines.vllm_engine"}) == []


def test_edges_do_not_know_engines_of_a_kind() -> None:
    knowing = offenders("inference", {"inference.engines.vllm_engine"}) + offenders(
        "yapserver", {"inference.engines.vllm_engine"}
    )
    assert knowing in ([], [line for line in knowing if line.startswith("inference.engines.service imports")])


def environment_reads(path: Path) -> list[int]:
    """Lines that touch the environment."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb", "putenv"))
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and any(a.name in ("environ", "getenv") for a in node.names)
        )
    ]


def test_one_file_reads_the_environment() -> None:
    # Besides the typed environment: Django's own switch, set by its entry points; what vLLM can only be told in no
    # other way; and the mark by which processes of an engine are known again.
    allowed = {
        "yapserver.env",
        "yapserver.asgi",
        "inference.engines.vllm_engine",
        "inference.engines.supervisor",
    }
    touching = {name_of(path) for path in MODULES if environment_reads(path)}
    assert touching <= allowed
    entry = (ROOT / "yapserver/asgi.py").read_text()
    assert entry.count("os.environ") == entry.count('os.environ.setdefault("DJANGO_SETTINGS_MODULE"') == 1


def test_models_hold_data_and_no_logic() -> None:
    for package in ("accounts", "personas"):
        tree = ast.parse((ROOT / package / "models.py").read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert not functions & {"save", "delete"}, package
    signals = [
        name_of(path) for path in MODULES if any(i.startswith("django.db.models.signals") for i in imports(path))
    ]
    assert signals == []


def test_names_say_what_is_in_a_file() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    assert [name_of(path) for path in MODULES if path.stem in vague] == []


def test_files_are_small() -> None:
    large = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    allowed = {"inference.session": 550}  # one contract; one state machine
    assert {name: lines for name, lines in large.items() if lines > allowed.get(name, 400)} == {}


def test_heart_imports_without_django() -> None:
    """Plain Python, in a process that cannot import Django at all."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        "for name in ('django', 'channels', 'rest_framework', 'vllm', 'torch'): sys.modules[name] = None\n"
        "import inference.session, inference.turn, inference.reply\n"
        "import inference.prompting.persona_resolver, inference.session_registry\n"
        "import inference.engines.service\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

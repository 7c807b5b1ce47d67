"""Dependencies between packages and modules, read from imports and from the strings by which Django names things."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("accounts", "inference", "personas", "yapserver")
WEB = {"django", "channels", "rest_framework", "drf_spectacular", "daphne", "twisted", "asgiref", "unfold"}
# The edges of inference, by the last part of their names: the only modules that may import Django or Channels.
EDGES = {"access", "admission", "apps", "config_watcher", "consumer", "metrics_view"} | {
    "session_registry", "urls", "views",
}  # fmt: skip
MAX_LINES = 350
MODULES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if "migrations" not in path.relative_to(ROOT).parts
)


# A model, a permission or a module as Django's settings and lookups name it: "personas.Persona".
_DJANGO_NAME = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+")


def name_of(path: Path) -> str:
    """Return the dotted name of a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return all syntax nodes of a file."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> frozenset[str]:
    """Return every module that a file imports, anywhere in the file, also for types only."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


@cache
def named(path: Path) -> frozenset[str]:
    """Return every name of ours that a file holds as a string, such as ``"personas.Persona"``."""
    return frozenset(
        node.value
        for node in nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _DJANGO_NAME.fullmatch(node.value)
    )


def offenders(of: str, forbidden: set[str], except_for: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """Return ``module uses forbidden`` for every module of the package ``of``, by an import or by a string."""
    return sorted(
        f"{name_of(path)} uses {imported}"
        for path in MODULES
        if name_of(path).split(".")[0] == of and name_of(path) not in except_for
        for imported in imports(path) | named(path)
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


def test_strings_are_dependencies_too(tmp_path: Path) -> None:
    file = tmp_path / "models.py"
    file.write_text(
        'ForeignKey("personas.Persona")\nlogging.getLogger("yap.turn")\napps.get_model("accounts.ApiKey")\n'
    )
    assert named(file) == {"personas.Persona", "accounts.ApiKey"}


def test_accounts_depends_on_personas() -> None:
    """A key is allowed personas; the architecture names this dependency."""
    assert offenders("accounts", {"personas"}) != []


def graph(files: list[Path]) -> dict[str, set[str]]:
    """Return each module's dependencies among ``files``: a name that is imported from a module counts as the module."""
    known = {name_of(path) for path in files}
    return {name_of(path): {found for found in imports(path) if found in known} - {name_of(path)} for path in files}


def test_there_is_no_import_cycle() -> None:
    try:
        TopologicalSorter(graph(MODULES)).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_the_edges_of_inference_know_the_web() -> None:
    edges = {
        name
        for path in MODULES
        if (name := name_of(path)).split(".")[0] == "inference" and name.split(".")[-1] in EDGES
    }
    assert offenders("inference", WEB, edges) == []


def test_the_core_of_inference_imports_only_plain_modules_of_other_packages() -> None:
    """Sessions, turns and prompts run without a database: they import only frozen data and limits of other packages."""
    plain = {
        "accounts.addresses", "accounts.callers", "accounts.limits", "accounts.token_budget",
        "accounts.usage", "accounts.connection_slots", "accounts.credentials", "personas.snapshot",
        "personas.macros", "personas.text_forms", "personas.tool_files", "personas.tool_snapshot",
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
    assert knowing in ([], [line for line in knowing if line.startswith("inference.engines.service uses")])


def environment_reads(path: Path) -> list[int]:
    """Return the lines that read or change the environment."""
    return [
        node.lineno
        for node in nodes(path)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb", "putenv"))
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and any(a.name in ("environ", "getenv") for a in node.names)
        )
    ]


def test_one_file_reads_the_environment() -> None:
    # Besides the typed environment: Django's own switch, set by its entry points; variables by which alone vLLM can be
    # configured; and the marks of engine processes.
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
    files = [*MODULES, *(path for folder in ("scripts", "docker", "tests") for path in (ROOT / folder).rglob("*.py"))]
    large = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: lines for name, lines in large.items() if lines > MAX_LINES} == {}


def test_the_core_of_inference_imports_without_django() -> None:
    """The core runs in a process that cannot import Django at all."""
    code = (
        "import sys\n"
        "for name in ('django', 'channels', 'rest_framework', 'vllm', 'torch'): sys.modules[name] = None\n"
        "import inference.session, inference.turn, inference.reply\n"
        "import inference.prompting.persona_resolver, inference.session_registry\n"
        "import inference.engines.service\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

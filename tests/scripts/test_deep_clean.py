"""The deep clean: what goes, what stays in every mode, and that no link is followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scripts.checkout import Checkout
from tests.scripts.test_main_serves import alive, pid_in

pytestmark = pytest.mark.scripts

KEPT = ("yap.sqlite3", "secret.key", "demo.key", "server.log", "server.log.1", "last_start.json", "exports.note")


def fill(checkout: Checkout) -> None:
    """Everything that a used checkout has."""
    root = checkout.root
    for folder in (".venv-quantize/bin", ".venv-release/bin", ".venv-clients/bin", ".models/awq/m-1",
                   ".models/mine", ".cache/vllm", ".run/static",
                   "inference/__pycache__", "scripts/deep/__pycache__", "home/.cache/pip", "home/.cache/uv",
                   "home/.cache/huggingface/hub/models--a--b", "home/.cache/torch", "home/.cache/vllm",
                   "home/.triton/cache", "home/.nv/ComputeCache", "home/.cache/other"):  # fmt: skip
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "file").write_bytes(b"x" * 100_000)
    for name in KEPT:
        (root / ".run" / name).write_text(name)
    (root / "home/.cache/huggingface/token").write_text("hf_login")
    (root / ".env").write_text("CHAT_MAX_OUT=99\n")


def home(checkout: Checkout) -> dict[str, str]:
    return {"HOME": str(checkout.root / "home"), "PYTHON": os.path.realpath(checkout.root / ".venv/bin/python")}


def assert_kept(checkout: Checkout) -> None:
    assert all((checkout.root / ".run" / name).read_text() == name for name in KEPT)
    for path in (".env", ".models/mine/file", "home/.cache/huggingface/token", "home/.cache/other/file",
                 "scripts/main.sh"):  # fmt: skip
        assert (checkout.root / path).exists(), path


OURS = (".venv", ".venv-quantize", ".venv-release", ".venv-clients", ".models/awq", ".models/SmolLM2-135M-Instruct",
        ".cache", ".run/static",
        "inference/__pycache__", "scripts/deep/__pycache__")  # fmt: skip
USERS = ("home/.cache/pip", "home/.cache/uv", "home/.cache/huggingface/hub", "home/.cache/torch", "home/.cache/vllm",
         "home/.triton/cache", "home/.nv/ComputeCache")  # fmt: skip


def test_a_dry_run_only_prints(checkout: Checkout) -> None:
    assert checkout.run("main.sh").returncode == 0
    fill(checkout)
    done = checkout.run("stop.sh", "--dry-run", NUKE_ALL="home", **home(checkout))
    assert done.returncode == 0, done.stderr
    assert "would stop the server" in done.stdout
    assert alive(pid_in(checkout, ".run/server.pid"))
    for path in (*OURS, *USERS):
        assert (checkout.root / path).exists(), path
        if "__pycache__" not in path:
            assert f"{checkout.root / path} (" in done.stdout, path
    assert "would remove" in done.stdout
    assert_kept(checkout)


def test_the_default_cleans_this_checkout(checkout: Checkout) -> None:
    assert checkout.run("main.sh").returncode == 0
    server, temporary = pid_in(checkout, ".run/server.pid"), Path(checkout.shell("temporary_folder").stdout.strip())
    assert temporary.is_dir()
    fill(checkout)
    done = checkout.run("stop.sh", **home(checkout))
    assert done.returncode == 0, done.stderr
    assert not alive(server)
    assert not temporary.exists()
    assert not [path for path in OURS if (checkout.root / path).exists()]
    assert not [path for path in USERS if not (checkout.root / path).exists()]
    assert "kept" in done.stdout
    assert ".run: database, secrets, keys, logs" in done.stdout
    assert_kept(checkout)


def test_home_clears_the_users_caches_but_not_the_login(checkout: Checkout) -> None:
    fill(checkout)
    done = checkout.run("stop.sh", NUKE_ALL="home", **home(checkout))
    assert done.returncode == 0, done.stderr
    assert not [path for path in (*OURS, *USERS) if (checkout.root / path).exists()]
    assert_kept(checkout)


def test_the_light_stop_removes_nothing(checkout: Checkout) -> None:
    fill(checkout)
    done = checkout.run("stop.sh", NUKE_ALL="0", **home(checkout))
    assert done.stdout == "yap: no server of this checkout is running\n"
    assert not [path for path in (*OURS, *USERS) if not (checkout.root / path).exists()]


def test_an_unknown_mode(checkout: Checkout) -> None:
    done = checkout.run("stop.sh", NUKE_ALL="2")
    assert done.returncode != 0
    assert done.stderr == "yap: NUKE_ALL=2: allowed are 0, 1, home\n"


def test_no_link_is_followed(checkout: Checkout, tmp_path: Path) -> None:
    fill(checkout)
    elsewhere = tmp_path / "elsewhere"
    for name in ("venv", "models/awq", "static", "hub", "cache"):
        (elsewhere / name).mkdir(parents=True)
        (elsewhere / name / "precious").write_text("x")
    root = checkout.root
    for link, target in {".venv-quantize": "venv", ".models": "models", ".run/static": "static",
                         "home/.cache/huggingface/hub": "hub"}.items():  # fmt: skip
        (root / link).rename(root / f"{link.replace('/', '-')}-before")
        (root / link).symlink_to(elsewhere / target)
    (root / ".cache/link").symlink_to(elsewhere / "cache")
    done = checkout.run("stop.sh", NUKE_ALL="home", **home(checkout))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in elsewhere.rglob("precious")) == ["precious"] * 5
    assert (root / ".venv-quantize").is_symlink()
    assert f"kept    {root / '.venv-quantize'}: a symbolic link to {elsewhere / 'venv'}" in done.stdout
    assert "reached by a symbolic link" in done.stdout
    assert not (root / ".cache").exists()


def test_what_holds_something_precious_stays_whole(checkout: Checkout) -> None:
    """A cache variable that names the home, a run folder inside the caches."""
    fill(checkout)
    root = checkout.root
    (root / ".cache/run").mkdir()
    (root / ".cache/run/yap.sqlite3").write_text("database")
    done = checkout.run(
        "stop.sh", NUKE_ALL="home", RUN_DIR=str(root / ".cache/run"), UV_CACHE_DIR=str(root / "home"),
        PIP_CACHE_DIR="/", HF_HUB_CACHE=str(root), **home(checkout),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (root / ".cache/run/yap.sqlite3").read_text() == "database"
    assert_kept(checkout)
    reasons = [line.rpartition(": ")[2] for line in done.stdout.splitlines() if line.startswith("yap: kept")]
    assert reasons.count("never removed") == 2  # the home and the checkout
    assert "a mount point" in reasons  # the root folder
    assert f"{root / '.cache/run'} lies in it" in reasons


def test_models_outside_the_checkout_are_kept(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "models/awq").mkdir(parents=True)
    done = checkout.run("stop.sh", MODELS_DIR=str(tmp_path / "models"), **home(checkout))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models/awq").is_dir()
    assert f"kept    {tmp_path / 'models'}: outside this checkout" in done.stdout


@pytest.mark.parametrize("script", ["stop.sh", "restart.sh", "warmup.sh", "lint.sh", "quantize.sh", "main.sh"])
def test_help(checkout: Checkout, script: str) -> None:
    done = checkout.run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert f"scripts/{script}" in done.stdout

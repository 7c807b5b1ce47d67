"""The installer: what uv is told on which machine, and that a second start installs nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.scripts.checkout import Checkout

pytestmark = pytest.mark.processes


@pytest.fixture
def told(checkout: Checkout) -> Path:
    """The file that a stand-in uv writes its arguments to; nothing is installed yet."""
    checkout.program(".venv/bin/uv", 'printf "%s\\n" "$*" >>"uv-told"')
    (checkout.root / ".venv/.installed").unlink()
    return checkout.root / "uv-told"


def test_installs_once(checkout: Checkout, told: Path) -> None:
    assert checkout.shell("install cpu dev").returncode == 0
    assert len(told.read_text().splitlines()) == 2
    assert checkout.shell("install cpu dev").returncode == 0
    assert len(told.read_text().splitlines()) == 2


def test_hashes_are_required(checkout: Checkout, told: Path) -> None:
    """The tests' own Python is the locks' own where it is 3.11."""
    checkout.shell("install cpu dev")
    expected = sys.version_info[:2] == (3, 11)
    assert [("--require-hashes" in line) == expected for line in told.read_text().splitlines()] == [True, True]


def test_a_changed_lock_installs_its_set_again(checkout: Checkout, told: Path) -> None:
    checkout.shell("install cpu dev")
    with (checkout.root / "requirements-dev.txt").open("a") as lock:
        lock.write("one-more==1.0\n")
    checkout.shell("install cpu dev")
    cpu, dev, again = told.read_text().splitlines()
    assert again == dev != cpu
    assert checkout.shell("installed cpu && installed dev").returncode == 0


def test_a_failed_install_is_not_remembered(checkout: Checkout, told: Path) -> None:
    checkout.program(".venv/bin/uv", "exit 1")
    done = checkout.shell("install cpu")
    assert done.returncode == 1
    assert "installing requirements-cpu.txt failed" in done.stderr
    assert checkout.shell("installed cpu").returncode != 0


def test_torch_from_pips_own_folder(checkout: Checkout, told: Path, tmp_path: Path) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    checkout.shell("install cpu", PIP_FIND_LINKS=str(tmp_path))
    assert f"--find-links {tmp_path}" in told.read_text()
    assert "--torch-backend" not in told.read_text()


@pytest.mark.parametrize("links", ["", "/folder/without/torch"])
def test_torch_from_its_own_index(checkout: Checkout, told: Path, links: str) -> None:
    checkout.shell("install cpu", PIP_FIND_LINKS=links, PIP_CONFIG_FILE="/dev/null")
    assert "--torch-backend cpu" in told.read_text()
    assert "--excludes requirements-cpu.excludes" in told.read_text()


def test_cuda_never_takes_the_cpu_build(checkout: Checkout, told: Path, tmp_path: Path) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    checkout.shell("install cuda", PIP_FIND_LINKS=str(tmp_path))
    assert "-r requirements.txt" in told.read_text()
    assert "--find-links" not in told.read_text()
    assert "--torch-backend" not in told.read_text()


def test_pips_index_is_handed_on(checkout: Checkout, told: Path) -> None:
    checkout.shell("install cpu", PIP_INDEX_URL="https://mirror.example/simple")
    assert "--default-index https://mirror.example/simple" in told.read_text()


def test_the_device_is_asked(checkout: Checkout) -> None:
    assert checkout.shell("device").stdout == "cpu\n"
    checkout.program("bin/nvidia-smi", "echo 'GPU 0: one'")
    assert checkout.shell("device").stdout == "cuda\n"

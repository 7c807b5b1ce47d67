"""`manage.py check --deploy`: silent behind a TLS proxy, and not silent where the server is in the open without one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.server import CHECKOUT, MANAGE, clean_environment

pytestmark = pytest.mark.scripts

PUBLIC = {
    "DEBUG": "0", "HOST": "0.0.0.0", "ALLOWED_HOSTS": "yap.example", "TEXT_API_KEY": "kQ4wX9vTn2LmR7pZc5sB",
    "CSRF_TRUSTED_ORIGINS": "https://yap.example",
}  # fmt: skip


def check(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the check; a warning makes its exit status 1."""
    return subprocess.run(
        [*MANAGE, "check", "--deploy", "--fail-level", "WARNING"], cwd=CHECKOUT, stdin=subprocess.DEVNULL,
        env=clean_environment(RUN_DIR=str(folder), **variables), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


def test_behind_a_tls_proxy_the_check_is_silent(tmp_path: Path) -> None:
    done = check(tmp_path, **PUBLIC, TRUST_PROXY="1")
    assert done.returncode == 0, done.stderr
    # W021 and W005 alone: HSTS holds for this host, not for other hosts of the operator's domain.
    assert "no issues (2 silenced)" in done.stdout + done.stderr


def test_in_the_open_without_tls_the_check_warns(tmp_path: Path) -> None:
    done = check(tmp_path, **PUBLIC)
    assert done.returncode == 1
    for name in ("security.W004", "security.W008", "security.W012", "security.W016"):
        assert name in done.stderr


def test_debug_on_a_public_host_is_an_error(tmp_path: Path) -> None:
    done = check(tmp_path, **{**PUBLIC, "DEBUG": "1"}, TRUST_PROXY="1")
    assert done.returncode == 1
    assert "security.W018" in done.stderr

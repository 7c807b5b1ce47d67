"""What an operator is told by ``manage.py check --deploy``, in processes of their own: settings are made once."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.server import CHECKOUT, MANAGE, clean_environment

pytestmark = pytest.mark.processes
KEY = "hV7tq2mLr9wZc4nBd8fK"


def told(folder: Path, *command: str, **variables: str) -> tuple[int, str]:
    environment = clean_environment(RUN_DIR=str(folder), TEXT_API_KEY=KEY, **variables)
    done = subprocess.run(
        [*MANAGE, *command], env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("variables", [{}, {"HOST": "0.0.0.0", "TRUST_PROXY": "1"}], ids=["loopback", "behind TLS"])
def test_a_deployed_server_has_nothing_to_complain_of(tmp_path: Path, variables: dict[str, str]) -> None:
    code, text = told(tmp_path, "check", "--deploy", "--fail-level", "WARNING", **variables)
    assert code == 0, text
    if variables:
        assert "(2 silenced)" in text  # HSTS on subdomains and preloading: see settings


def test_an_open_address_without_tls_is_complained_of(tmp_path: Path) -> None:
    code, text = told(tmp_path, "check", "--deploy", "--fail-level", "WARNING", HOST="0.0.0.0")
    assert code == 1
    assert set(re.findall(r"security\.(W\d+)", text)) == {"W004", "W008", "W012", "W016"}


def test_the_schema_validates_without_a_warning(tmp_path: Path) -> None:
    code, text = told(tmp_path, "spectacular", "--validate", "--fail-on-warn")
    assert code == 0, text
    for path in ("/api/v1/personas/", "/api/v1/usage/", "/status", "/healthz", "/readyz"):
        assert f"  {path}:" in text

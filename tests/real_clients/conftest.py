"""Runs a script of `scripts/` with the clients' interpreter; the script's last line of output is its result."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server import CHECKOUT, YapServer

CLIENTS = CHECKOUT / ".venv-clients"
SCRIPTS = Path(__file__).parent / "scripts"
TIMEOUT_S = 120.0

RunClient = Callable[..., dict[str, Any]]


def client_environment(home: Path, **variables: str) -> dict[str, str]:
    """The environment of a client: no settings of this machine, a home of its own, and no network but the server."""
    return {
        "PATH": f"{CLIENTS / 'bin'}:{os.environ['PATH']}",
        "HOME": str(home),
        "LLM_USER_PATH": str(home / "llm"),
        "PYTHONUNBUFFERED": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LANGSMITH_TRACING": "false",
        **variables,
    }


@pytest.fixture
def run_client(demo_server: YapServer, tmp_path: Path) -> RunClient:
    """Run a script by its name.

    The script gets `base_url`, `key`, `model` and the given options as JSON on stdin. Returns its result; the
    `seconds` of its run are added. A script that fails fails the test, with what it wrote.
    """

    def run(script: str, **options: Any) -> dict[str, Any]:
        asked = {"base_url": f"{demo_server.origin}/v1", "key": demo_server.api_key, "model": "mia", **options}
        assert (CLIENTS / "bin/python").exists(), "run bash scripts/install.sh clients"
        done = subprocess.run(
            [str(CLIENTS / "bin/python"), str(SCRIPTS / f"{script}.py")],
            input=json.dumps(asked), env=client_environment(tmp_path), cwd=tmp_path, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}"
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    return run

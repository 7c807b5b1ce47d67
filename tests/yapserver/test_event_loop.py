from __future__ import annotations

import subprocess
import sys

import pytest

from yapserver.env import BASE_DIR

# `--help` ends the command after Django was set up, which imports Daphne and its reactor.
_SCRIPT = """
import runpy, sys
sys.argv = ["manage.py", *sys.argv[1:], "--help"]
try:
    runpy.run_path("manage.py", run_name="__main__")
except SystemExit:
    from twisted.internet import reactor
    print(type(reactor._asyncioEventloop).__module__)
"""


@pytest.mark.processes
@pytest.mark.parametrize(("command", "loop"), [("serve", "uvloop"), ("check", "asyncio.unix_events")])
def test_serve_alone_runs_daphne_on_uvloop(command: str, loop: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _SCRIPT, command], cwd=BASE_DIR, capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.splitlines()[-1] == loop

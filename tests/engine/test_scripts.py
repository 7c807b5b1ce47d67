"""The life of a server in an operator's hands: main.sh, warmup.sh, restart.sh, stop.sh and its deep clean, for real."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clone import KEY, Clone
from tests.server import TINY
from tests.wsclient import client

pytestmark = [pytest.mark.engine]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    made = Clone(tmp_path / "clone", models=[TINY.name])
    yield made
    made.close()


async def test_a_server_from_its_start_to_the_deep_clean(clone: Clone) -> None:
    model = f".models/{TINY.name}"
    done = clone.run("main.sh", "both", model, model)
    assert done.returncode == 0, done.stderr
    first = clone.server_pid()
    assert f"ready (pid {first})" in done.stdout

    # -- warmup.sh: the warm-up client twice, the bench twice with as many sessions as there are places
    done = clone.run("warmup.sh", environ={"WARMUP_TIMEOUT_S": "30"})
    assert done.returncode == 0, done.stdout + done.stderr
    server_log = (clone.root / ".run/server.log").read_text()
    assert " yap.runtime ready" in server_log, "the import of vLLM silences the log"
    assert " yap.turn turn " in server_log
    log = (clone.root / ".run/warmup.log").read_text()
    assert log.count("ACK ok") == 2
    assert done.stdout.count("yap: bench -n 2 -c 2") == 2
    assert KEY not in log + done.stdout

    # -- restart.sh replaces the running server by the record of its start, which holds no secret
    record = clone.root / ".run/last_start.json"
    assert record.stat().st_mode & 0o777 == 0o600
    assert KEY not in record.read_text()
    done = clone.run("restart.sh", environ={"CHAT_MAX_OUT": "50"})
    assert done.returncode == 0, done.stderr
    second = clone.server_pid()
    assert f"stopping the server (pid {first})" in done.stdout
    assert second != first
    assert "CHAT_MAX_OUT=50 (now; was 400)" in done.stderr
    async with client(clone.ws_url, KEY) as yap:
        answer = await yap.say("Hello!")
    assert 0 < answer.usage["completion_tokens"] <= 50

    # -- the dry run of the deep clean: everything is named, nothing happens
    dry = clone.run("stop.sh", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert f"would stop the server (pid {second})" in dry.stdout
    for name in (".venv", f".models/{TINY.name}", ".cache", ".run/static"):
        assert re.search(rf"would remove +[\d.]+ [kMG]B  {re.escape(str(clone.root / name))} ", dry.stdout), dry.stdout
        assert (clone.root / name).is_dir()
    async with client(clone.ws_url, KEY) as yap:
        assert (await yap.say("Hello!")).usage["completion_tokens"] > 0

    # -- the light stop ends every process and removes nothing
    done = clone.run("stop.sh", environ={"NUKE_ALL": "0"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "yap: stopped"
    assert clone.processes() == []
    assert (clone.root / ".venv/bin/python").exists()
    assert (clone.root / ".models" / TINY.name).is_dir()

    # -- the deep clean: what the checkout made goes; database, secrets and logs stay
    done = clone.run("stop.sh")
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    for name in (".venv", f".models/{TINY.name}", ".cache", ".run/static"):
        assert not (clone.root / name).exists(), name
    assert not list(clone.root.rglob("__pycache__"))
    for name in ("yap.sqlite3", "secret.key", "server.log", "last_start.json"):
        assert (clone.root / ".run" / name).is_file(), name
    assert (clone.root / "manage.py").is_file()
    assert TINY.is_dir()  # of the checkout that the clone was made from

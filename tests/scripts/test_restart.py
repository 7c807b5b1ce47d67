"""restart.sh: from the record of the last start, on a running server and after a reboot."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from scripts import last_start
from scripts.last_start import RecordError
from tests.scripts.checkout import Checkout
from tests.scripts.test_main_serves import AWQ, NAMED, alive, environment, pid_in
from yapserver.env import Environment

pytestmark = pytest.mark.scripts


def record(checkout: Checkout) -> dict[str, object]:
    found: dict[str, object] = json.loads((checkout.root / ".run/last_start.json").read_text())
    return found


def test_a_running_server_is_replaced_with_the_same_settings(checkout: Checkout) -> None:
    model = checkout.model("one", **AWQ)
    assert checkout.run("main.sh", "awq", "chat", str(model), **NAMED, CHAT_MAX_OUT="77").returncode == 0
    old = pid_in(checkout, ".run/server.pid")
    file = checkout.root / ".run/last_start.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert '"k"' not in file.read_text()
    assert record(checkout)["secrets"] == ["TEXT_API_KEY"]

    done = checkout.run("restart.sh", TEXT_API_KEY="k", GEN_TIMEOUT_S="9")
    assert done.returncode == 0, done.stderr
    assert f"stopping the server (pid {old})" in done.stdout
    assert "CHAT_MAX_OUT=77" in done.stderr
    assert not alive(old)
    given = environment(checkout)
    assert (given["DEPLOY_MODELS"], given["AWQ_CHAT_MODEL"]) == ("chat", str(model))
    assert (given["CHAT_MAX_OUT"], given["GEN_TIMEOUT_S"]) == ("77", "9")
    assert given["CHAT_QUANTIZATION"] == "awq"
    assert given["MAX_CONCURRENT_CONNECTIONS"] == "3"


def test_the_environment_wins(checkout: Checkout) -> None:
    assert checkout.run("main.sh", CHAT_MAX_OUT="77").returncode == 0
    done = checkout.run("restart.sh", CHAT_MAX_OUT="78")
    assert done.returncode == 0, done.stderr
    assert "CHAT_MAX_OUT=78 (now; was 77)" in done.stderr
    assert environment(checkout)["CHAT_MAX_OUT"] == "78"
    assert checkout.run("restart.sh").returncode == 0  # and is on record now
    assert environment(checkout)["CHAT_MAX_OUT"] == "78"


def test_after_a_reboot(checkout: Checkout) -> None:
    """Nothing runs, the pid file names a process of somebody else, the temporary folder is gone."""
    assert checkout.run("main.sh", "tool", ".models/SmolLM2-135M-Instruct", **NAMED).returncode == 0
    checkout.shell('end_leftovers; rm -rf "$(temporary_folder)"')
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL) as other:
        (checkout.root / ".run/server.pid").write_text(str(other.pid))
        done = checkout.run("restart.sh", TEXT_API_KEY="k")
        assert done.returncode == 0, done.stderr
        assert other.poll() is None
        other.send_signal(signal.SIGKILL)
    assert environment(checkout)["DEPLOY_MODELS"] == "tool"


@pytest.mark.parametrize(
    ("arguments", "variables", "reason"),
    [
        (["all"], {}, "'all': allowed are both, chat, tool, --push"),
        (["both", "chat"], {}, "'chat': one of both, chat, tool is enough"),
        (["both"], {"TEXT_API_KEY": "k"}, "the last start had no tool model: set TOOL_MODEL or AWQ_TOOL_MODEL"),
        ([], {}, "not set: TEXT_API_KEY; the last start had it, and secrets are not recorded"),
        (["--push"], {"TEXT_API_KEY": "k"}, "--push pushes 4-bit exports; the last start had none"),
        ([], {"TEXT_API_KEY": "k", "CHAT_MODEL": "/no/model"}, "chat model /no/model not found"),
    ],
)
def test_refused_while_the_server_runs_on(
    checkout: Checkout, arguments: list[str], variables: dict[str, str], reason: str
) -> None:
    assert checkout.run("main.sh", "chat", ".models/SmolLM2-135M-Instruct", **NAMED).returncode == 0
    pid = pid_in(checkout, ".run/server.pid")
    done = checkout.run("restart.sh", *arguments, **variables)
    assert done.returncode != 0
    assert reason in done.stderr.splitlines()[-1]
    assert alive(pid)


def test_no_record(checkout: Checkout) -> None:
    done = checkout.run("restart.sh")
    assert done.returncode != 0
    assert "no record of a start" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_packages_are_installed_only_when_asked(checkout: Checkout) -> None:
    assert checkout.run("main.sh").returncode == 0
    checkout.program(".venv/bin/uv", 'printf "%s\\n" "$*" >>"uv-told"')
    (checkout.root / ".venv/.installed").unlink()
    done = checkout.run("restart.sh")
    assert done.returncode != 0
    assert "scripts/restart.sh --install-deps installs them" in done.stderr
    done = checkout.run("restart.sh", "--install-deps", PIP_CONFIG_FILE="/dev/null")
    assert done.returncode == 0, done.stderr
    assert "requirements-cpu.txt" in (checkout.root / "uv-told").read_text()


# -- the record ------------------------------------------------------------------------------------


def test_the_names_are_those_of_the_settings() -> None:
    assert last_start.setting_names() == list(Environment.model_fields)


def test_what_the_env_file_sets_is_not_recorded() -> None:
    environ = {
        "PORT": "1",
        "CHAT_MAX_OUT": "2",
        "TEXT_API_KEY_FILE": "/k",
        "HF_TOKEN": "s",
        "HOME": "/root",
        "RUN_DIR": "/r",
    }
    made = last_start.collect(environ, False, {"PORT": "1", "CHAT_MAX_OUT": "3"}, list(Environment.model_fields))
    assert made["variables"] == {"CHAT_MAX_OUT": "2"}
    assert made["secrets"] == ["TEXT_API_KEY", "HF_TOKEN"]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"version": 2, "variables": {}}', '{"version": 1, "variables": {"A": 1}}',
                '{"version": 1, "variables": {"A; rm -rf /": "x"}}'],
)  # fmt: skip
def test_a_broken_record(tmp_path: Path, content: str) -> None:
    file = tmp_path / "last_start.json"
    file.write_text(content)
    with pytest.raises(RecordError, match=r"start with scripts/main\.sh"):
        last_start.read(file)


def test_another_model_hides_both_names_of_the_old_one() -> None:
    old = {"version": 1, "variables": {"AWQ_CHAT_MODEL": "a", "TOOL_MODEL": "b", "PORT": "1"}, "secrets": []}
    assert last_start.reused(old, {"CHAT_MODEL": "c"}, None) == {"TOOL_MODEL": "b", "PORT": "1"}

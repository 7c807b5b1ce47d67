"""main.sh and stop.sh around a server that is ready at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scripts.checkout import Checkout

pytestmark = pytest.mark.scripts


def environment(checkout: Checkout) -> dict[str, str]:
    found: dict[str, str] = json.loads((checkout.root / "environment").read_text())
    return found


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def pid_in(checkout: Checkout, name: str) -> int:
    return int((checkout.root / name).read_text())


def test_demo_start_and_stop(checkout: Checkout) -> None:
    done = checkout.run("main.sh")
    assert done.returncode == 0, done.stderr
    assert (checkout.root / "prepared").exists()
    assert f"ws://127.0.0.1:{checkout.port}/ws" in done.stdout
    assert f"http://127.0.0.1:{checkout.port}/admin/" in done.stdout
    assert "admin account: admin" in done.stdout
    assert "\r" not in done.stdout
    assert "\033" not in done.stdout
    server, engine = pid_in(checkout, ".run/server.pid"), pid_in(checkout, "engine.pid")
    assert os.getpgid(server) == server
    assert alive(engine)

    given = environment(checkout)
    key_file = checkout.root / ".run/demo.key"
    key = key_file.read_text().strip()
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert given["TEXT_API_KEY"] == key
    assert done.stdout.count(key) == 1
    assert given["MAX_CONCURRENT_CONNECTIONS"] == "8"
    assert given["TOOL_HARD_TIMEOUT_MS"] == "-1"
    assert given["YAP_CHECKOUT"] == str(checkout.root)
    assert given["DEBUG"] == "0"
    assert "building engines" in (checkout.root / ".run/server.log").read_text()

    again = checkout.run("main.sh")
    assert again.returncode != 0
    assert again.stderr.splitlines() == [
        f"yap: a server of this checkout is already running (pid {server}) at 127.0.0.1:{checkout.port}; "
        "NUKE_ALL=0 scripts/stop.sh ends it, scripts/restart.sh replaces it"
    ]

    stopped = checkout.run("stop.sh", NUKE_ALL="0")
    assert stopped.returncode == 0
    assert not alive(server)
    assert not alive(engine)
    assert not (checkout.root / ".run/server.pid").exists()

    second = checkout.run("main.sh")
    assert second.returncode == 0, second.stderr
    assert key not in second.stdout  # printed once
    assert str(key_file) in second.stdout
    assert environment(checkout)["TEXT_API_KEY"] == key


NAMED = {"TEXT_API_KEY": "k", "MAX_CONCURRENT_CONNECTIONS": "3"}
AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4}}


def test_named_models_reach_the_server(checkout: Checkout) -> None:
    model = checkout.root / ".models/SmolLM2-135M-Instruct"
    stale = {"CHAT_MODEL": "/stale", "TOOL_MODEL": "/stale", "AWQ_TOOL_MODEL": "/stale"}
    done = checkout.run("main.sh", str(model), ".models/SmolLM2-135M-Instruct", "tool", **NAMED, **stale)
    assert done.returncode == 0, done.stderr
    given = environment(checkout)
    assert given["DEPLOY_MODELS"] == "tool"
    assert (given["AWQ_TOOL_MODEL"], given["TOOL_MODEL"]) == ("", str(model))
    assert (given["AWQ_CHAT_MODEL"], given["CHAT_MODEL"]) == ("", str(model))
    assert given["MAX_CONCURRENT_CONNECTIONS"] == "3"
    assert "TOOL_HARD_TIMEOUT_MS" not in given
    assert not (checkout.root / ".run/demo.key").exists()
    assert (checkout.root / "server.log").readlink() == checkout.root / ".run/server.log"


# arguments, variables → which engines are deployed, with which AWQ models
FORMS: list[tuple[list[str], dict[str, str], str, str | None, str | None]] = [
    (["awq", "both", "one", "two"], {}, "both", "one", "two"),
    (["awq", "one", "two"], {}, "both", "one", "two"),
    (["awq", "one", "two", "chat"], {}, "chat", "one", None),
    (["awq", "chat", "one"], {}, "chat", "one", None),
    (["awq", "tool", "two"], {}, "tool", None, "two"),
    (["awq"], {"AWQ_CHAT_MODEL": "one", "AWQ_TOOL_MODEL": "two"}, "both", "one", "two"),
    (["awq", "both"], {"AWQ_CHAT_MODEL": "one", "TOOL_MODEL": "two"}, "both", "one", "two"),
    (["awq", "chat"], {"AWQ_CHAT_MODEL": "one"}, "chat", "one", None),
    (["awq", "tool"], {"AWQ_TOOL_MODEL": "two"}, "tool", None, "two"),
    (["awq", "float", "two"], {"AWQ_CHAT_MODEL": "one"}, "both", "one", "two"),
]


@pytest.mark.parametrize(("arguments", "variables", "deployed", "chat", "tool"), FORMS)
def test_every_form_of_awq(
    checkout: Checkout,
    arguments: list[str],
    variables: dict[str, str],
    deployed: str,
    chat: str | None,
    tool: str | None,
) -> None:
    names = {"one": str(checkout.model("one", **AWQ)), "two": str(checkout.model("two", **AWQ))}
    words = [names.get(word, word) for word in arguments]
    done = checkout.run("main.sh", *words, **NAMED, **{name: names[value] for name, value in variables.items()})
    assert done.returncode == 0, done.stderr
    given = environment(checkout)
    assert given["DEPLOY_MODELS"] == deployed
    for role, model in (("CHAT", chat), ("TOOL", tool)):
        if model is not None:
            assert given[f"AWQ_{role}_MODEL"] == names[model]
            assert not given.get(f"{role}_MODEL")
            assert given[f"{role}_QUANTIZATION"] == "awq"
    if "float" in arguments:
        assert "the argument float is not used" in done.stdout


def test_settings_of_the_env_file(checkout: Checkout) -> None:
    (checkout.root / "key").write_text("from-a-file\n")
    (checkout.root / ".env").write_text(
        f"PORT=1\nCHAT_MAX_OUT=99\nCHECK_SCREEN_PREFIX='LOOK $HOME:'\nTEXT_API_KEY_FILE={checkout.root / 'key'}\n"
    )
    done = checkout.run("main.sh")
    assert done.returncode == 0, done.stderr
    given = environment(checkout)
    assert given["PORT"] == str(checkout.port)
    assert (given["CHAT_MAX_OUT"], given["CHECK_SCREEN_PREFIX"]) == ("99", "LOOK $HOME:")
    assert "TEXT_API_KEY" not in given  # the server reads the file itself
    assert not (checkout.root / ".run/demo.key").exists()


def test_caches_and_temporary_files_are_this_checkouts(checkout: Checkout) -> None:
    assert checkout.run("main.sh").returncode == 0
    given = environment(checkout)
    for name in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE"):
        assert Path(given[name]).is_relative_to(checkout.root / ".cache")
    folder = Path(given["TMPDIR"])
    assert folder.name.startswith("yap-")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()


def test_a_server_that_dies_while_starting(checkout: Checkout) -> None:
    done = checkout.run("main.sh", FAKE="dies")
    assert done.returncode != 0
    reason = "the server ended while starting: yap: bad setting: CHAT_MAX_LEN=1: too short"
    assert done.stderr.splitlines()[-1] == f"yap: {reason}"
    assert not (checkout.root / ".run/server.pid").exists()


def test_an_engine_that_dies_while_starting(checkout: Checkout) -> None:
    done = checkout.run("main.sh", FAKE="engine dies")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("yap: the server cannot get ready: chat engine dead: no memory")


def test_start_after_a_kill(checkout: Checkout) -> None:
    assert checkout.run("main.sh").returncode == 0
    server, engine = pid_in(checkout, ".run/server.pid"), pid_in(checkout, "engine.pid")
    os.kill(server, signal.SIGKILL)
    done = checkout.run("main.sh")
    assert done.returncode == 0, done.stderr
    assert not alive(engine)
    assert alive(pid_in(checkout, "engine.pid"))


@contextmanager
def following(checkout: Checkout) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """main.sh as an operator runs it, by the time it follows the log; its output goes to the file."""
    output = checkout.root / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "scripts/main.sh"],
            cwd=checkout.root,
            env=checkout.environ({"TAIL": "1"}),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: "NUKE_ALL=0 scripts/stop.sh ends the server" in output.read_text(), output)
        until(lambda: follows(checkout, output), output)
        yield process, output
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(condition: Callable[[], bool], output: Path) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.02)


def follows(checkout: Checkout, output: Path) -> bool:
    """Write to the log, and say whether any such line has been shown."""
    with (checkout.root / ".run/server.log").open("a") as log:
        log.write("a turn ended\n")
    return "a turn ended" in output.read_text()


def test_interrupt_ends_only_the_tail(checkout: Checkout) -> None:
    with following(checkout) as (process, output):
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=20) == 0
        assert "the server keeps running" in output.read_text()
        assert alive(pid_in(checkout, ".run/server.pid"))


def test_the_tail_ends_with_the_server(checkout: Checkout) -> None:
    with following(checkout) as (process, output):
        assert checkout.run("stop.sh", NUKE_ALL="0").returncode == 0
        assert process.wait(timeout=20) == 0, output.read_text()


def test_the_tail_tells_of_a_server_that_died(checkout: Checkout) -> None:
    with following(checkout) as (process, output):
        os.kill(pid_in(checkout, ".run/server.pid"), signal.SIGKILL)
        assert process.wait(timeout=20) == 1
        assert "the server has ended by itself" in output.read_text()

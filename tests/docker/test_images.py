"""Both stacks, built and run in a real Docker Engine: models embedded or mounted, no network, one turn, a clean end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.daemon import REGISTRY, DockerDaemon, missing
from tests.server import CHECKOUT, TINY
from tests.servers import free_port
from tests.wsclient import client

pytestmark = [pytest.mark.docker]
KEY, TOKEN = "kQ4wX9vTn2LmR7pZc5sB", "hf_token_that_no_layer_holds"
SETTINGS = {
    "TEXT_API_KEY": KEY, "MAX_CONCURRENT_CONNECTIONS": "2", "TOOL_HARD_TIMEOUT_MS": "-1", "CHAT_MAX_LEN": "2048",
    "CHAT_PROMPT_MAX_TOKENS": "500", "HISTORY_MAX_TOKENS": "1000", "DEPLOY_MODELS": "chat",
}  # fmt: skip


@pytest.fixture(scope="module")
def daemon() -> Iterator[DockerDaemon]:
    """The daemon keeps its layers between runs: packages are installed once."""
    assert missing() is None, "scripts/test.sh skips this suite by name where no Docker Engine can run"
    server = DockerDaemon(Path("/var/tmp/yap-docker-tests"))
    try:
        server.start().make_base()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def registry(daemon: DockerDaemon) -> Iterator[str]:
    """A registry on the loopback; its address."""
    port = free_port()
    settings = daemon.folder / "registry.yml"
    settings.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {daemon.folder / 'registry'}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (daemon.folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([REGISTRY, "serve", str(settings)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


def build(daemon: DockerDaemon, stack: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`docker/STACK/build.sh`; what it prints is captured."""
    environ = {**daemon.environ, "DEVICE": "cpu", "DOCKER_NETWORK": "host", "DEPLOY_MODELS": "chat", **variables}
    return subprocess.run(
        ["bash", f"docker/{stack}/build.sh", *options], cwd=CHECKOUT, env=environ, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip


def image_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr[-3000:]
    return next(line.split()[2] for line in done.stdout.splitlines() if line.startswith("yap: built "))


@pytest.fixture(scope="module")
def mixed(daemon: DockerDaemon, registry: str) -> str:
    """The mixed image of a local tiny model, pushed to the registry."""
    return image_of(
        build(daemon, "mixed", "--push", DOCKER_USERNAME=f"{registry}/me", CHAT_MODEL=str(TINY), HF_TOKEN=TOKEN)
    )


@pytest.fixture(scope="module")
def awq(daemon: DockerDaemon) -> str:
    return image_of(build(daemon, "awq", DOCKER_USERNAME="me", HF_TOKEN=TOKEN))


def last_line(daemon: DockerDaemon, image: str, *options: str, **variables: str) -> str:
    """The only line of a container that refuses to start."""
    given = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    done = daemon.run("run", "--rm", "--network=none", *given, *options, image, check=False, timeout=120)
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_labels_and_tag(daemon: DockerDaemon, mixed: str) -> None:
    assert mixed.endswith("/me/yap-text-inference-mixed:chat-fp8-cpu")
    config = daemon.inspect(mixed)["Config"]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    assert config["Labels"]["org.opencontainers.image.revision"].startswith(commit.strip())
    assert config["Labels"]["org.yap.models"] == f"chat={TINY.name}"
    assert config["User"] == "10001"
    assert config["Volumes"] == {"/data": {}}


def test_the_token_is_in_no_layer_and_no_history(daemon: DockerDaemon, mixed: str, tmp_path: Path) -> None:
    assert TOKEN not in daemon.run("history", "--no-trunc", mixed).stdout
    assert TOKEN not in json.dumps(daemon.inspect(mixed))
    found = daemon.run(
        "run", "--rm", "--network=none", "--user=0", "--entrypoint=sh", mixed, "-c",
        f"grep -rl {TOKEN} / --exclude-dir=proc --exclude-dir=sys 2>/dev/null; ls /run/secrets 2>/dev/null; true",
    )  # fmt: skip
    assert found.stdout.strip() == ""


def test_what_is_pushed_can_be_pulled(daemon: DockerDaemon, registry: str, mixed: str) -> None:
    tags = json.loads(
        subprocess.run(
            ["curl", "-s", f"http://{registry}/v2/me/yap-text-inference-mixed/tags/list"],
            capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    assert tags["tags"] == ["chat-fp8-cpu"]
    daemon.run("pull", mixed)


def test_deployments_that_cannot_serve(daemon: DockerDaemon, mixed: str, awq: str) -> None:
    named = {"TEXT_API_KEY": KEY, "MAX_CONCURRENT_CONNECTIONS": "2"}
    assert "not set: TEXT_API_KEY, MAX_CONCURRENT_CONNECTIONS;" in last_line(daemon, mixed)
    line = last_line(daemon, mixed, **named, DEPLOY_MODELS="both")
    assert "no tool model is embedded in this image; rebuild it, or set DEPLOY_MODELS=chat" in line
    assert "CHAT_MODEL is set, and this image serves its embedded models" in last_line(
        daemon, mixed, **named, CHAT_MODEL="owner/other"
    )
    assert "not set: AWQ_CHAT_MODEL" in last_line(daemon, awq, **named, DEPLOY_MODELS="chat")
    mount = ("-v", f"{TINY}:/models/chat:ro")
    line = last_line(daemon, awq, *mount, **named, DEPLOY_MODELS="chat", AWQ_CHAT_MODEL="/models/chat")
    assert "its weights are not stored as awq" in line


def test_builds_that_cannot_succeed(daemon: DockerDaemon) -> None:
    for variables, reason in (
        ({}, "DOCKER_USERNAME is not set"),
        ({"DOCKER_USERNAME": "me"}, "exactly one of CHAT_MODEL and AWQ_CHAT_MODEL is needed for the chat engine"),
        ({"DOCKER_USERNAME": "me", "AWQ_CHAT_MODEL": str(TINY)}, "the chat model has float weights: use CHAT_MODEL"),
        (
            {"DOCKER_USERNAME": "me", "CHAT_MODEL": str(TINY), "TOOL_MODEL": str(TINY)},
            "TOOL_MODEL is set, and DEPLOY_MODELS=chat embeds no tool model",
        ),
    ):
        done = build(daemon, "mixed", **variables)
        assert done.returncode == 1
        assert done.stderr.startswith(f"yap: {reason}"), done.stderr
        assert len(done.stderr.splitlines()) == 1


async def test_mixed_talks_offline_and_ends_in_time(daemon: DockerDaemon, mixed: str) -> None:
    port = free_port()
    given = [word for name, value in SETTINGS.items() for word in ("-e", f"{name}={value}")]
    # A network of its own without a way out: what is published is all that there is.
    name = daemon.run(
        "run", "-d", "--shm-size=1g", "--stop-timeout=75", "--dns=127.0.0.1", "-p", f"127.0.0.1:{port}:8000", *given,
        mixed,
    ).stdout.strip()  # fmt: skip
    try:
        began = time.monotonic()
        while (health := daemon.inspect(name)["State"]["Health"]["Status"]) != "healthy":
            assert daemon.inspect(name)["State"]["Running"], daemon.run("logs", name).stderr[-3000:]
            assert time.monotonic() - began < 600, (health, daemon.run("logs", name).stderr[-3000:])
            await asyncio.sleep(1)
        print(f"healthy after {time.monotonic() - began:.0f} s")
        async with client(f"ws://127.0.0.1:{port}/ws", KEY) as yap:
            answer = await yap.say("Hello!")
        assert answer.usage["completion_tokens"] > 0
        began = time.monotonic()
        daemon.run("stop", name)
        print(f"stopped after {time.monotonic() - began:.1f} s")
        state = daemon.inspect(name)["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
        assert KEY not in daemon.run("logs", name).stdout + daemon.run("logs", name).stderr
    finally:
        daemon.run("rm", "-f", name, check=False)

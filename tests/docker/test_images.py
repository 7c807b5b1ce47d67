"""Both stacks, built and run in a real Docker Engine: models embedded or mounted, no network, one turn, a clean end."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.engines.device import cpu_flags
from tests.docker.daemon import BASE, REGISTRY, DockerDaemon, missing
from tests.server import CHECKOUT, TINY, clean_environment
from tests.servers import free_port
from tests.wsclient import client

pytestmark = [pytest.mark.docker]
KEY, TOKEN = "kQ4wX9vTn2LmR7pZc5sB", f"hf_{secrets.token_hex(16)}"
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
    settings = {"DEVICE": "cpu", "BASE": BASE, "DOCKER_NETWORK": "host", "DEPLOY_MODELS": "chat"}
    environ = {**daemon.environ, **settings, **variables}
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


def test_the_token_is_in_no_layer_and_no_history(daemon: DockerDaemon, mixed: str) -> None:
    assert TOKEN not in daemon.run("history", "--no-trunc", mixed).stdout
    facts = daemon.inspect(mixed)
    assert TOKEN not in json.dumps(facts)
    layers = facts["GraphDriver"]["Data"]
    folders = [*layers["LowerDir"].split(":"), layers["UpperDir"]]
    assert len(folders) == len(facts["RootFS"]["Layers"])
    # Every layer by itself: a file that a later layer removes would be found too.
    found = subprocess.run(["grep", "-rlF", TOKEN, *folders], capture_output=True, text=True, timeout=600, check=False)
    assert (found.returncode, found.stdout) == (1, ""), found


def test_what_is_pushed_can_be_pulled(daemon: DockerDaemon, registry: str, mixed: str) -> None:
    tags = json.loads(
        subprocess.run(
            ["curl", "-s", f"http://{registry}/v2/me/yap-text-inference-mixed/tags/list"],
            capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    assert tags["tags"] == ["chat-fp8-cpu"]
    daemon.run("pull", mixed)


def test_a_base_is_pinned_by_its_digest(daemon: DockerDaemon, registry: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    image, file = f"{registry}/me/base:1", tmp_path / "base-image"
    daemon.run("build", "-t", image, str(tmp_path))
    daemon.run("push", image)

    def pin(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "docker/pin-base.sh", name], cwd=CHECKOUT, env={**daemon.environ, "BASE_FILE": str(file)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    assert pin(image).returncode == 0
    pinned = file.read_text().strip()
    assert re.fullmatch(rf"{re.escape(image)}@sha256:[0-9a-f]{{64}}", pinned)
    daemon.run("pull", pinned)
    assert pin(f"{registry}/me/base:none").returncode == 1
    assert file.read_text().strip() == pinned


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


async def talks_and_ends(daemon: DockerDaemon, image: str, *options: str, **variables: str) -> None:
    """Run a container, wait until it is healthy, hold one turn over the published port, and stop it."""
    port = free_port()
    given = [word for name, value in {**SETTINGS, **variables}.items() for word in ("-e", f"{name}={value}")]
    # A network of its own without a way out: what is published is all that there is.
    name = daemon.run(
        "run", "-d", "--shm-size=1g", "--stop-timeout=75", "--dns=127.0.0.1", "-p", f"127.0.0.1:{port}:8000", *given,
        *options, image,
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
        logs = daemon.run("logs", name)
        assert KEY not in logs.stdout + logs.stderr
    finally:
        daemon.run("rm", "-f", name, check=False)


async def test_mixed_talks_offline_and_ends_in_time(daemon: DockerDaemon, mixed: str) -> None:
    await talks_and_ends(daemon, mixed)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the tiny model by the quantizer, for a mount."""
    folder = tmp_path_factory.mktemp("export")
    done = subprocess.run(
        ["bash", "scripts/quantize.sh", str(TINY), "--out", str(folder / "tiny")], cwd=CHECKOUT,
        env=clean_environment(AWQ_NSAMPLES="2", AWQ_SEQLEN="64", RUN_DIR=str(folder / "run")),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for above in (folder, *folder.parents[:2]):  # pytest's folders are its user's alone; the container has another
        above.chmod(0o755)
    return folder / "tiny"


async def test_awq_talks_with_a_mounted_export(daemon: DockerDaemon, awq: str, export: Path) -> None:
    """Without AVX-512 the container refuses these weights; with the tests' own operation it serves them."""
    mount, named = ("-v", f"{export}:/models/chat:ro"), {"AWQ_CHAT_MODEL": "/models/chat"}
    if "avx512f" in cpu_flags():
        await talks_and_ends(daemon, awq, *mount, **named)
        return
    assert "4-bit weights need AVX-512" in last_line(daemon, awq, *mount, **SETTINGS, **named)
    operation = ("-v", f"{CHECKOUT / 'tests/quantizer/reference_op'}:/operation:ro")
    await talks_and_ends(daemon, awq, *mount, *operation, **named, PYTHONPATH="/operation:/app")

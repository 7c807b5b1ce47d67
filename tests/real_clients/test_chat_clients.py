"""Python clients of chat completions against a real server: a turn, an interruption, the turn after it, refusals."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.real_clients.conftest import CLIENTS, TIMEOUT_S, RunClient, client_environment
from tests.server import YapServer

pytestmark = pytest.mark.engine


def nothing_runs(server: YapServer) -> bool:
    """Whether every interrupted reply has freed its slot."""
    status = server.status()
    return not status["turns_running"] and not status["connections"]["active"]


def test_openai(run_client: RunClient, demo_server: YapServer) -> None:
    result = run_client("openai_chat")
    assert {"mia", "nova", "theo"} <= set(result["models"])
    assert result["model"]["id"] == "mia"
    first = result["first"]
    assert first["object"] == "chat.completion"
    assert first["choices"][0]["message"]["content"].strip()
    assert first["choices"][0]["finish_reason"] in ("stop", "length")
    stream = result["stream"]
    assert stream["text"].strip()
    assert stream["chunks"] > 3
    assert stream["ids"] == 1
    assert stream["finish_reason"] in ("stop", "length")
    usage = stream["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    # Everything that was said is in the prefix cache, but for the last block, which is not full.
    assert usage["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["total_tokens"] - 32
    assert result["request_id"]
    assert len(result["interrupted"]) > 20
    assert result["after"].strip()
    assert result["short"]["choices"][0]["finish_reason"] == "length"
    assert result["short"]["usage"]["completion_tokens"] <= 5
    assert result["unknown_model"]["code"] == "model_not_found"
    assert "mia" in result["unknown_model"]["message"]
    assert result["wrong_key"] == {"code": "invalid_api_key", "status": 401}
    assert nothing_runs(demo_server)


def test_pipecat(run_client: RunClient, demo_server: YapServer) -> None:
    result = run_client("pipecat_chat")
    assert result["errors"] == []
    assert result["first"].strip()
    assert len(result["interrupted"]) > 20
    assert result["after"].strip()
    roles = [message["role"] for message in result["context"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    assert result["context"][2]["content"].strip() == result["first"].strip()
    assert result["usage"][-1]["cache_read_input_tokens"] > 0
    assert nothing_runs(demo_server)


def test_livekit(run_client: RunClient, demo_server: YapServer) -> None:
    result = run_client("livekit_chat")
    assert result["first"].strip()
    assert result["usage"]["completion_tokens"] > 0
    assert len(result["interrupted"]) > 20
    assert result["after"].strip()
    assert result["cached"] > 0
    calls, text = result["tool"]["calls"], result["tool"]["text"]
    # The demo's tool model does not recognise every request: then the character answers.
    assert [name for name, _ in calls] == ["take_screenshot"] if calls else text.strip()
    assert nothing_runs(demo_server)


def test_litellm(run_client: RunClient) -> None:
    result = run_client("litellm_chat")
    assert result["plain"].strip()
    assert result["plain_reason"] in ("stop", "length")
    assert result["usage"]["total_tokens"] > 0
    assert result["stream"].strip()
    assert result["reasons"][-1] in ("stop", "length")
    assert result["stream_usage"][-1]["completion_tokens"] > 0


def test_langchain(run_client: RunClient) -> None:
    result = run_client("langchain_chat")
    assert result["reply"].strip()
    assert result["usage"]["input_tokens"] > 0
    assert result["reason"] in ("stop", "length")
    assert result["stream"].strip()
    assert result["stream_usage"][-1]["output_tokens"] > 0
    assert set(result["cake"]) == {"name", "price"}


def llm_command(folder: Path, *arguments: str) -> str:
    """Run the `llm` command; returns its output."""
    done = subprocess.run(
        [str(CLIENTS / "bin/llm"), *arguments], env=client_environment(folder), cwd=folder, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("more", [(), ("--no-stream",)])
def test_llm(demo_server: YapServer, tmp_path: Path, more: tuple[Any, ...]) -> None:
    endpoint = ("openai", "endpoint", f"{demo_server.origin}/v1", "--key", demo_server.api_key)
    if not more:
        assert {"mia", "nova", "theo"} <= set(llm_command(tmp_path, *endpoint, "--models").split())
    assert llm_command(tmp_path, *endpoint, "-m", "mia", *more, "Hello! What do you bake?").strip()

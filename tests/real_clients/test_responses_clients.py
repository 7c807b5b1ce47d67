"""Clients of the Responses API and its WebSocket against a real server: a turn, an interruption, the turn after it."""

from __future__ import annotations

import pytest

from tests.real_clients.conftest import RunClient
from tests.real_clients.test_chat_clients import nothing_runs
from tests.server import YapServer

pytestmark = pytest.mark.engine


def test_openai(run_client: RunClient, demo_server: YapServer) -> None:
    result = run_client("openai_responses")
    whole, streamed = result["whole"], result["streamed"]
    assert whole["status"] == "completed"
    assert whole["output"][0]["content"][0]["text"].strip()
    assert streamed["previous_response_id"] == whole["id"]
    assert streamed["output"][0]["content"][0]["text"] == result["text"]
    assert result["kinds"][0] == "response.created"
    # Everything that was said is in the prefix cache, but for the last block, which is not full.
    cached = streamed["usage"]["input_tokens_details"]["cached_tokens"]
    assert cached >= whole["usage"]["total_tokens"] - 32
    assert result["cancelled"] in ("response.incomplete", "response.completed")  # completed: the reply was short
    assert result["after"].strip()
    assert nothing_runs(demo_server)


def test_pipecat(run_client: RunClient, demo_server: YapServer) -> None:
    result = run_client("pipecat_chat", responses=True)
    assert result["errors"] == []
    assert result["first"].strip()
    assert len(result["interrupted"]) > 20
    assert result["after"].strip()
    assert result["after_s"] < 30
    roles = [message["role"] for message in result["context"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    assert result["context"][2]["content"].strip() == result["first"].strip()
    assert result["usage"][-1]["cache_read_input_tokens"] > 0
    assert nothing_runs(demo_server)


def test_livekit(run_client: RunClient, demo_server: YapServer) -> None:
    result = run_client("livekit_chat", responses=True)
    assert result["first"].strip()
    assert result["usage"]["completion_tokens"] > 0
    assert len(result["interrupted"]) > 20
    assert result["after"].strip()
    assert result["cached"] > 0
    calls, text = result["tool"]["calls"], result["tool"]["text"]
    assert [name for name, _ in calls] == ["take_screenshot"] if calls else text.strip()
    assert nothing_runs(demo_server)

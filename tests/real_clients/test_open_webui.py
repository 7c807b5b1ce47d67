"""Open WebUI 0.12.4: the requests of its server, recorded in front of ours, with README's settings.

Its package needs 2.4 GB and two minutes to install, so that the tests send its requests themselves. The recorded run:
README's two variables, a new admin user, one message on its page, the background requests behind it, a second message
and its stop button. The tools are those that its page offers by default; their descriptions are replaced by words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.documents import README, blocks, section
from tests.real_clients.test_chat_clients import nothing_runs
from tests.server import YapServer

pytestmark = pytest.mark.engine

HELLO = {"role": "user", "content": "Hello! What do you bake?"}
TASKS = {
    "title": ("Generate a concise title summarizing the chat history.", {"max_tokens": 1000}),
    "tags": ("Generate 1-3 broad tags categorizing the main themes of the chat history.", {}),
    "follow-ups": ("Predict 3-5 useful messages this user might naturally send next.", {}),
}
"""The requests that follow a reply: the task, and fields that are sent beside model, messages and stream."""


def tools() -> list[dict[str, Any]]:
    """The 36 tools that its page offers with every message, about 25 kB."""
    known = json.loads(Path(__file__).with_name("open_webui_tools.json").read_text())
    return [
        {
            "type": "function",
            "function": {
                "name": tool["name"],
                "description": ("word " * tool["description_length"])[: tool["description_length"]],
                "parameters": tool["parameters"],
            },
        }
        for tool in known
    ]


@pytest.fixture
def http(demo_server: YapServer) -> Iterator[httpx.Client]:
    """A client with README's settings."""
    (block,) = blocks(section(README.read_text(), "Open WebUI"), "ini")
    block = block.replace("127.0.0.1:8000", f"127.0.0.1:{demo_server.port}").replace("YAP_KEY", demo_server.api_key)
    settings = dict(line.split("=", 1) for line in block.splitlines())
    headers = {"Authorization": f"Bearer {settings['OPENAI_API_KEY']}", "Accept-Encoding": "gzip, deflate, br"}
    with httpx.Client(base_url=settings["OPENAI_API_BASE_URL"], headers=headers, timeout=60) as client:
        yield client


def test_the_models_have_names(http: httpx.Client) -> None:
    models = {model["id"]: model["name"] for model in http.get("/models").raise_for_status().json()["data"]}
    assert models["mia"] == "Mia"
    assert all(models.values())


def test_a_message_of_its_page_and_the_requests_behind(http: httpx.Client) -> None:
    body = {"stream": True, "model": "mia", "messages": [HELLO], "tools": tools()}
    with http.stream("POST", "/chat/completions", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    said = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert said.strip()
    assert choices[-1]["finish_reason"] in ("stop", "length")
    for task, more in TASKS.values():
        prompt = f"### Task:\n{task}\n### Chat History:\nUSER: {HELLO['content']}\nASSISTANT: {said}"
        body = {"model": "mia", "messages": [{"role": "user", "content": prompt}], "stream": False, **more}
        answer = http.post("/chat/completions", json=body).raise_for_status()
        # The demo model may answer a task with nothing: the form is what its server reads.
        assert isinstance(answer.json()["choices"][0]["message"]["content"], str)


def test_its_stop_button_frees_the_slot(http: httpx.Client, demo_server: YapServer) -> None:
    story = {"role": "user", "content": "Tell me a very long story of the sea, with many details."}
    messages = [HELLO, {"role": "assistant", "content": "Bread, and a pie."}, story]
    body = {"stream": True, "model": "mia", "messages": messages, "tools": tools()}
    with http.stream("POST", "/chat/completions", json=body) as answer:
        assert next(line for line in answer.iter_lines() if line.startswith("data: "))
    assert nothing_runs(demo_server)

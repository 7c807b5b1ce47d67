"""SillyTavern 1.19.0's own server in front of ours: chat completion "custom", and text completion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.real_clients.sillytavern import PACKAGE, SillyTavern
from tests.server import YapServer

pytestmark = pytest.mark.engine

# What its page sends with the default settings.
CHAT: dict[str, Any] = {
    "chat_completion_source": "custom", "model": "mia", "temperature": 1, "frequency_penalty": 0,
    "presence_penalty": 0, "top_p": 1, "max_tokens": 60, "stream": False, "char_name": "Mia", "user_name": "User",
    "messages": [
        {"role": "system", "content": "Write Mia's next reply in a fictional chat between Mia and User."},
        {"role": "system", "content": "[Start a new Chat]"},
        {"role": "assistant", "content": "Good morning! The bread is still warm."},
        {"role": "user", "content": "Hello! What do you bake today?"},
    ],
}  # fmt: skip
PROMPT = "<|im_start|>system\nYou are Mia.<|im_end|>\n<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n"
TEXT: dict[str, Any] = {
    "prompt": PROMPT, "model": "mia", "max_new_tokens": 60, "max_tokens": 60, "temperature": 0.7, "top_p": 0.5,
    "typical_p": 1, "min_p": 0, "repetition_penalty": 1.2, "frequency_penalty": 0, "presence_penalty": 0, "top_k": 0,
    "stop": ["\nUser:", "<|im_end|>"], "stopping_strings": ["\nUser:"], "stream": False, "dry_multiplier": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def tavern(demo_server: YapServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SillyTavern]:
    assert PACKAGE.is_dir(), "run .venv/bin/python -m tests.real_clients.sillytavern"
    server = SillyTavern(tmp_path_factory.mktemp("sillytavern"))
    try:
        for kind in ("custom", "generic", "vllm", "tabby"):
            server.keep_key(kind, demo_server.api_key)
        yield server
    finally:
        server.stop()


def test_the_models_are_the_personas(tavern: SillyTavern, demo_server: YapServer) -> None:
    body = {"chat_completion_source": "custom", "custom_url": f"{demo_server.origin}/v1"}
    answer = tavern.post("chat-completions/status", body)
    assert {"mia", "nova", "theo"} <= {model["id"] for model in answer["data"]}


def test_chat_completion(tavern: SillyTavern, demo_server: YapServer) -> None:
    chat = CHAT | {"custom_url": f"{demo_server.origin}/v1"}
    answer = tavern.post("chat-completions/generate", chat)
    assert answer["choices"][0]["message"]["content"].strip()
    events = tavern.stream("chat-completions/generate", chat | {"stream": True})
    text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    assert text.strip()
    assert events[-1]["choices"][0]["finish_reason"] in ("stop", "length")


def test_continue_goes_on_from_the_last_message(tavern: SillyTavern, demo_server: YapServer) -> None:
    begun = {"role": "assistant", "content": "Today I bake three things: bread,"}
    chat = CHAT | {"custom_url": f"{demo_server.origin}/v1", "messages": [*CHAT["messages"], begun]}
    text = tavern.post("chat-completions/generate", chat)["choices"][0]["message"]["content"]
    assert text.strip()
    assert begun["content"] not in text


def test_banned_strings_by_the_included_body(tavern: SillyTavern, demo_server: YapServer) -> None:
    chat = CHAT | {"custom_url": f"{demo_server.origin}/v1", "custom_include_body": 'banned_strings: ["a", "e"]'}
    text = tavern.post("chat-completions/generate", chat)["choices"][0]["message"]["content"]
    assert not set("ae") & set(text.lower())


def test_stop_frees_the_server(tavern: SillyTavern, demo_server: YapServer) -> None:
    chat = CHAT | {"custom_url": f"{demo_server.origin}/v1", "stream": True, "max_tokens": 300}
    with tavern.http.stream("POST", "/api/backends/chat-completions/generate", json=chat) as answer:
        next(line for line in answer.iter_lines() if line.startswith("data: "))
    deadline = time.monotonic() + 5
    while demo_server.status()["turns_running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["generic", "vllm", "tabby"])
def test_text_completion(tavern: SillyTavern, demo_server: YapServer, kind: str) -> None:
    asked = TEXT | {"api_type": kind, "api_server": demo_server.origin}
    if kind == "tabby":
        asked |= {"banned_strings": ["a", "e"]}
    text = tavern.post("text-completions/generate", asked)["choices"][0]["text"]
    assert text.strip()
    assert "<|im_" not in text
    if kind == "tabby":
        assert not set("ae") & set(text.lower())
    events = tavern.stream("text-completions/generate", asked | {"stream": True})
    assert "".join(choice["text"] for event in events for choice in event["choices"]).strip()


@pytest.mark.parametrize("kind", ["generic", "vllm", "tabby"])
def test_a_text_type_connects_with_an_address_and_a_key(tavern: SillyTavern, demo_server: YapServer, kind: str) -> None:
    """The page sends no model, unless its user chooses one; of vLLM's list it chooses the first."""
    server = {"api_type": kind, "api_server": demo_server.origin}
    status = tavern.post("text-completions/status", server)
    models = [model["id"] for model in status["data"]]
    assert {"mia", "nova", "theo"} <= set(models)
    assert status["result"] == models[0]
    asked = {name: value for name, value in TEXT.items() if name != "model"} | server
    if kind == "vllm":
        asked |= {"model": models[0]}
    assert tavern.post("text-completions/generate", asked)["choices"][0]["text"].strip()
    if kind != "generic":  # whose tokens the page counts by itself
        text = {"text": "Hello there!", "url": demo_server.origin, "api_type": kind}
        counted = tavern.http.post("/api/tokenizers/remote/textgenerationwebui/encode", json=text).json()
        assert counted["count"] == len(counted["ids"]) > 0

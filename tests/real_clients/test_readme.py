"""README's "Connect what you have": every block runs as it stands, with the address and the key of a test's server."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.documents import README, blocks, section
from tests.real_clients.conftest import CLIENTS, TIMEOUT_S, client_environment
from tests.real_clients.sillytavern import SillyTavern
from tests.server import YapServer

pytestmark = pytest.mark.engine

# A snippet that makes a service of a voice agent is followed by one turn with it.
PIPECAT_TURN = """
import asyncio
from pipecat.processors.aggregators.llm_context import LLMContext
print(asyncio.run(llm.run_inference(LLMContext([{"role": "user", "content": "Hello! What do you bake?"}]))))
"""
LIVEKIT_TURN = """
import asyncio
from livekit.agents.llm import ChatContext

async def turn():
    context = ChatContext.empty()
    context.add_message(role="user", content="Hello! What do you bake?")
    print((await llm.chat(chat_ctx=context).collect()).text)

asyncio.run(turn())
"""


def snippet(name: str, language: str, server: YapServer) -> str:
    """The block of one client, with the server's address and key."""
    (block,) = blocks(section(README.read_text(), name), language)
    assert "127.0.0.1:8000" in block
    assert "YAP_KEY" in block
    return block.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace("YAP_KEY", server.api_key)


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command, env=client_environment(folder), cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "more"),
    [("openai", ""), ("Pipecat", PIPECAT_TURN), ("LiveKit Agents", LIVEKIT_TURN), ("LiteLLM", ""), ("LangChain", "")],
)
def test_python(demo_server: YapServer, tmp_path: Path, name: str, more: str) -> None:
    script = tmp_path / "example.py"
    script.write_text(snippet(name, "python", demo_server) + more)
    said = run(tmp_path, str(CLIENTS / "bin/python"), str(script)).strip()
    assert len(said) > 3
    assert said != "None"


def test_the_llm_command(demo_server: YapServer, tmp_path: Path) -> None:
    command = shlex.split(snippet("llm", "console", demo_server).removeprefix("$ "))
    assert run(tmp_path, str(CLIENTS / "bin" / command[0]), *command[1:]).strip()


@pytest.fixture
def tavern(tmp_path: Path) -> Iterator[SillyTavern]:
    server = SillyTavern(tmp_path)
    yield server
    server.stop()


def test_sillytavern(demo_server: YapServer, tavern: SillyTavern) -> None:
    settings = dict(re.findall(r"^(.+?): (\S+)$", snippet("SillyTavern", "yaml", demo_server), re.MULTILINE))
    tavern.keep_key("custom", settings["Custom API Key"])
    answer = tavern.post(
        "chat-completions/generate",
        {
            "chat_completion_source": "custom", "custom_url": settings["Custom Endpoint (Base URL)"],
            "model": settings["Model"], "messages": [{"role": "user", "content": "Hello!"}], "stream": False,
        },
    )  # fmt: skip
    assert answer["choices"][0]["message"]["content"].strip()


def test_open_webui(demo_server: YapServer) -> None:
    """Its own server is no test dependency: the requests are those that its source makes with these settings."""
    settings = dict(line.split("=", 1) for line in snippet("Open WebUI", "ini", demo_server).splitlines())
    headers = {"Authorization": f"Bearer {settings['OPENAI_API_KEY']}"}
    with httpx.Client(headers=headers, timeout=60) as http:
        models = http.get(f"{settings['OPENAI_API_BASE_URL']}/models").raise_for_status().json()["data"]
        assert all(model["name"] for model in models)
        body = {
            "model": models[0]["id"], "stream": False, "max_tokens": 20,
            "messages": [{"role": "user", "content": "Suggest a title for this chat."}],
        }  # fmt: skip
        answer = http.post(f"{settings['OPENAI_API_BASE_URL']}/chat/completions", json=body).raise_for_status().json()
    assert answer["choices"][0]["message"]["content"].strip()

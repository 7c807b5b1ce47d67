"""README's "Connect what you have": every block runs as it stands, with the address and the key of a test's server."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

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
# A turn over the WebSocket, then a request outside of the conversation, which Pipecat always sends over HTTP.
PIPECAT_PIPELINE = """
import asyncio
from pipecat.frames.frames import EndFrame, LLMFullResponseEndFrame, LLMMessagesAppendFrame, LLMTextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.workers.runner import WorkerRunner

class Voice(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMTextFrame):
            print(frame.text, end="")
        elif isinstance(frame, LLMFullResponseEndFrame):
            await worker.queue_frame(EndFrame())
        await self.push_frame(frame, direction)

async def turn():
    global worker
    users, assistant = LLMContextAggregatorPair(LLMContext([]))
    worker = PipelineWorker(Pipeline([users, llm, Voice(), assistant]), cancel_on_idle_timeout=False)

    @worker.event_handler("on_pipeline_error")
    async def failed(worker, frame):
        raise SystemExit(frame.error)

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    message = {"role": "user", "content": "Hello! What do you bake?"}
    await worker.queue_frame(LLMMessagesAppendFrame([message], run_llm=True))
    await asyncio.wait_for(runner.run(), 60)
    assert await llm.run_inference(LLMContext([message]))

asyncio.run(turn())
"""
LIVEKIT_TURN = """
import asyncio
from livekit.agents.llm import ChatContext
from livekit.agents.utils import http_context

async def turn():
    context = ChatContext.empty()
    context.add_message(role="user", content="Hello! What do you bake?")
    async with http_context.open():
        print((await llm.chat(chat_ctx=context).collect()).text)
        await llm.aclose()

asyncio.run(turn())
"""


def snippet(name: str, language: str, server: YapServer, number: int = 0) -> str:
    """A block of one client, with the server's address and key."""
    block = blocks(section(README.read_text(), name), language)[number]
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


PYTHON = {
    "openai": [""],
    "Pipecat": [PIPECAT_TURN, PIPECAT_PIPELINE],
    "LiveKit Agents": [LIVEKIT_TURN, LIVEKIT_TURN],
    "LiteLLM": [""],
    "LangChain": [""],
}
"""By client: what follows each of its snippets."""


def test_every_snippet_of_python_is_run() -> None:
    text = section(README.read_text(), "Connect what you have")
    assert len(blocks(text, "python")) == sum(map(len, PYTHON.values()))


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, more in PYTHON.items() for number in range(len(more))]
)
def test_python(demo_server: YapServer, tmp_path: Path, name: str, number: int) -> None:
    script = tmp_path / "example.py"
    script.write_text(snippet(name, "python", demo_server, number) + PYTHON[name][number])
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

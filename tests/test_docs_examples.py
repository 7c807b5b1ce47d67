"""Runs the examples of README and ADVANCED."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference.prompting.tool_definitions import grammar_of
from inference.prompting.tool_prompt import split_examples
from inference.tool_call import parse_calls
from tests.clients_suite.running import KEY, environment
from tests.clients_suite.scripted_server import REPLY, Script, scripted
from tests.documents import ADVANCED, README, blocks, section
from tests.server import YapServer
from yapserver.env import BASE_DIR


async def _run(example: str, folder: Path, url: str, key: str) -> str:
    script = folder / "first.py"
    script.write_text(example)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script),
        env=environment({"TEXT_API_KEY": key, "SERVER_WS_URL": url, "PYTHONIOENCODING": "utf-8"}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out.decode()
    return out.decode()


def _first_conversation() -> str:
    (example,) = blocks(section(README.read_text(), "A first conversation"), "python")
    return example


@pytest.mark.processes
async def test_the_first_conversation_runs(tmp_path: Path) -> None:
    async with scripted(Script()) as server:
        out = await _run(_first_conversation(), tmp_path, server.url, KEY["TEXT_API_KEY"])
    assert server.starts()[0]["persona"] == "mia"
    assert REPLY in out
    kinds = [json.loads(line)["type"] for line in out.splitlines() if line.startswith("{")]
    assert kinds == ["ack", "toolcall", "final", "done"]


@pytest.mark.processes
async def test_the_first_conversation_says_why_it_was_refused(tmp_path: Path) -> None:
    async with scripted(Script()) as server:
        assert "authentication_failed" in await _run(_first_conversation(), tmp_path, server.url, "wrong")


@pytest.mark.engine
async def test_the_first_conversation_with_the_demo(tmp_path: Path, demo_server: YapServer) -> None:
    out = await _run(_first_conversation(), tmp_path, demo_server.ws_url, demo_server.api_key)
    frames = {frame["type"]: frame for line in out.splitlines() if line.startswith("{") for frame in [json.loads(line)]}
    assert [*frames] == ["ack", "toolcall", "final", "done"]
    assert frames["toolcall"]["status"] == "no"
    assert frames["final"]["normalized_text"] in out
    assert frames["done"]["usage"]["completion_tokens"] > 0


@pytest.mark.processes
async def test_the_example_of_the_library_runs(tmp_path: Path) -> None:
    (example,) = blocks(section(README.read_text(), "The command-line clients"), "python")
    async with scripted(Script(token_delay=0.005, reply=f"{REPLY} {REPLY}")) as server:
        example = example.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace("KEY", KEY["TEXT_API_KEY"], 1)
        library = str(BASE_DIR / "tests/clients")
        out = await _run(f"import sys; sys.path.insert(0, {library!r})\n{example}", tmp_path, server.url, "")
    assert REPLY[:40] in out
    assert [start["user_utterance"] for start in server.starts()] == ["Tell me a story.", "Wait: what was her name?"]
    assert server.starts()[1]["heard"] > 0


def test_the_tool_prompt_is_read_as_advanced_says() -> None:
    (prompt,) = blocks(section(ADVANCED.read_text(), "Tool prompts"), "text")
    instructions, examples = split_examples(prompt)
    assert "User:" not in instructions
    assert len(examples) == prompt.count("User:") == 4
    calls = [parse_calls(line.reply) for line in examples]
    assert [call[0]["name"] if call else None for call in calls] == [None, "take_screenshot", "get_weather", None]
    assert grammar_of(prompt).names == {"get_weather", "take_screenshot"}


@pytest.mark.processes
def test_the_bad_settings_are_refused_as_the_readme_says() -> None:
    said = section(README.read_text(), "Environment variables")
    done = subprocess.run(
        [sys.executable, "manage.py", "serve"],
        env={**os.environ, "QUANTIZATION": "int3"},
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.strip() in said

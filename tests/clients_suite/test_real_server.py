"""Every client against the real server with the demo model, with a concurrent and with a sequential tool decision."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from yapclient import Connection, ConnectionRefused, open_connection

from tests.clients_suite.running import Outcome, run_client
from tests.clients_suite.terminal_user import at_terminal

pytestmark = pytest.mark.engine

LIMIT_S = 240  # the demo model generates about 15 tokens per second on two cores


class DemoServer(Protocol):
    """The common type of the server fixtures."""

    ws_url: str
    origin: str
    api_key: str


async def run(server: DemoServer, name: str, *arguments: str, typed: str = "") -> Outcome:
    """Run a client against the server, given by its origin."""
    key = {"TEXT_API_KEY": server.api_key}
    return await run_client(name, "--server", server.origin, *arguments, variables=key, typed=typed, limit_s=LIMIT_S)


class EveryClient:
    """Checks of each client, for any server."""

    async def test_scripted_clients(self, server: DemoServer, tmp_path: Path) -> None:
        # All at once: the engine generates more tokens per second for concurrent requests.
        result, picture = tmp_path / "result.json", tmp_path / "result.png"
        files = ("--json", str(result), "--plot", str(picture))
        runs = (
            run(server, "warmup", "--double-ttfb", "Good", "morning!"),
            run(server, "conversation", "--brief"),
            run(server, "personality", "--switches", "2"),
            run(server, "screen_analysis", "--allow-no"),
            run(server, "bench", "-n", "2", "-c", "2", "--turns", "2", "--barge-in-share", "0.5", *files),
        )
        warmup, conversation, personality, screen_analysis, bench = done = await asyncio.gather(*runs)
        assert [(each.status, each.err) for each in done] == [(0, "")] * 5, done
        self.check_warmup(warmup.out.splitlines())
        assert "ok   history is kept" in conversation.out
        assert "ok   history is bounded" in conversation.out
        assert personality.out.count("200 updated") == 2
        assert personality.out.count("history intact") == 3
        assert "toolcall " in screen_analysis.out
        assert "ok   the followup was answered" in screen_analysis.out
        assert bench.out.endswith(f"written: {result}\ndrawn: {picture}\n")
        self.check_bench(json.loads(result.read_bytes())["summary"])
        assert picture.read_bytes().startswith(b"\x89PNG\r\n")

    def check_warmup(self, lines: list[str]) -> None:
        """Two passes of three lines each, the second one from the cache."""
        for ack, measured, final in (lines[:3], lines[3:]):
            metrics = json.loads(measured)
            assert ack.startswith("ACK ok session_id=cli-")
            assert metrics["ok"]
            assert metrics["ttfb_toolcall_ms"] <= metrics["ttfb_ms"] <= metrics["total_ms"]
            assert metrics["chars"] == len(json.loads(final)["text"]) > 0
        assert json.loads(lines[4])["usage"]["cached_tokens"] > 0

    def check_bench(self, summary: dict[str, Any]) -> None:
        """Every turn is answered and every time is measured."""
        assert summary["turns"]["ok"] == 4
        assert (summary["tokens_are"], summary["errors"], summary["refusals"]) == ("tokens", {}, {})
        assert {"first_token_ms", "first_sentence_ms", "tool_ms", "total_ms", "gap_ms"} <= summary["times"].keys()

    async def test_live(self, server: DemoServer, tmp_path: Path) -> None:
        where = ("--server", server.ws_url, "--api-key", server.api_key)
        async with at_terminal("live", *where, cwd=tmp_path) as user:
            await user.sees("you> ")
            user.presses("Tell me a long story about the sea.\r")
            await user.sees("Robin: ", LIMIT_S)
            await user.sees(" ", LIMIT_S)
            user.presses("Wait, what is your name?\r")
            await user.sees("(interrupted)", LIMIT_S)
            await user.sees("Robin: ", LIMIT_S)
            await user.sees("you> ", LIMIT_S)
            user.presses("/persona otto\r")
            await user.sees("Now talking with Otto (male, curious).")
            user.presses("Tell me a long story about the moon.\r")
            await user.sees("Otto: ", LIMIT_S)
            user.presses("\x03")
            await user.sees("(stopped)", LIMIT_S)
            user.presses("/stats\r")
            await user.sees("So far: 3 turns, 2 of them interrupted")
            user.presses("/quit\r")
            assert await user.leaves() == 0


class TestConcurrent(EveryClient):
    """The reply starts with the tool decision."""

    @pytest.fixture
    def server(self, demo_server: DemoServer) -> DemoServer:
        return demo_server


class TestSequential(EveryClient):
    """The tool decision comes first."""

    @pytest.fixture
    def server(self, demo_server_sequential: DemoServer) -> DemoServer:
        return demo_server_sequential


@pytest.fixture
async def crowd(demo_server: DemoServer) -> AsyncIterator[list[Connection]]:
    """Open as many connections as the server has slots."""
    async with AsyncExitStack() as stack:
        inside: list[Connection] = []
        while True:
            try:
                inside.append(await open_connection(demo_server.ws_url, demo_server.api_key))
            except ConnectionRefused:  # the test checks the code
                break
            stack.push_async_callback(inside[-1].close)
        yield inside


async def test_at_capacity_and_with_a_wrong_key(demo_server: DemoServer, crowd: list[Connection]) -> None:
    full, wrong = await asyncio.gather(
        run(demo_server, "warmup"), run_client("warmup", "--server", demo_server.ws_url, "--api-key", "wrong")
    )
    assert full.status == wrong.status == 3
    assert f"{len(crowd)} of {len(crowd)} connection slots are in use (closed with 1013)" in full.err
    assert "authentication_failed" in wrong.err
    assert "(closed with 1008)" in wrong.err

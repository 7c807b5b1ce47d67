"""The client library behind a network that breaks, and behind servers that restart one after the other."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from yapclient import Turn

from tests.balancer import balancing
from tests.clients_suite.talker import ENVIRONMENT, SAID, Talker
from tests.clients_suite.terminal_user import at_terminal
from tests.security.conftest import fake_server
from tests.server import YapServer

YAP_TURNS = Path(__file__).parent / "yap_turns.mjs"
LONG = " ".join(f"word{number}" for number in range(60))
Started = Callable[..., YapServer]


@pytest.fixture
def fake(server_folder: Callable[[], Path]) -> Iterator[Started]:
    made: list[YapServer] = []

    def server(**variables: str) -> YapServer:
        made.append(fake_server(server_folder(), **{**ENVIRONMENT, **variables}))
        return made[-1]

    yield server
    for each in made:
        each.stop()


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_a_hundred_random_drops_lose_no_text(fake: Started, kind: str) -> None:
    server = fake(SERVER=kind).start(60)
    dice = random.Random(19)
    async with balancing(server.port) as balancer:
        talker = Talker(balancer)

        def drop(turn: Turn) -> None:
            if dice.random() < 0.1 and balancer.open:
                balancer.drop(balancer.open[-1])

        async def drop_anywhere() -> None:
            while balancer.dropped < 100:
                await asyncio.sleep(dice.random() * 0.2)
                if balancer.open:
                    balancer.drop(balancer.open[-1])

        dropping = asyncio.create_task(drop_anywhere())
        turns = 0
        async with asyncio.timeout(120):
            while balancer.dropped < 100:
                turns += 1
                await talker.say(f"number {turns}", drop)
        await dropping
        await talker.say("and now?")
        assert balancer.dropped >= 100
        assert talker.resumed > 20
        assert set(talker.texts) == {SAID}
        assert talker.fallbacks == 0
        await talker.dialogue.close()


async def test_live_shows_that_the_reply_goes_on(fake: Started, tmp_path: Path) -> None:
    server = fake(YAP_TEST_REPLY=LONG, YAP_TEST_PACE_S="0.01").start(60)
    async with balancing(server.port) as balancer:
        url = f"ws://127.0.0.1:{balancer.port}/ws"
        async with at_terminal("live", "--server", url, "--api-key", YapServer.api_key, cwd=tmp_path) as user:
            await user.sees("you> ")
            user.presses("Tell me everything\r")
            before = await user.sees("word20 ")
            balancer.drop(balancer.open[0])
            before += "word20 " + await user.sees("· The connection broke off and is back; the reply goes on.\n")
            after = await user.sees(LONG[-6:])
            told = before.rpartition(": ")[2].rstrip("\n") + after + LONG[-6:]
            assert told.split() == LONG.split()


async def test_the_browser_module_resumes(fake: Started) -> None:
    server = fake().start(60)
    dice = random.Random(20)
    async with balancing(server.port) as balancer:
        url = f"ws://127.0.0.1:{balancer.port}/ws"
        process = await asyncio.create_subprocess_exec(
            "node", "--experimental-websocket", "--no-warnings", str(YAP_TURNS), url, YapServer.api_key, "40",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            ending = asyncio.create_task(process.communicate())
            while not ending.done():
                await asyncio.wait({ending}, timeout=dice.random() * 0.4)
                if balancer.open and balancer.dropped < 60:
                    balancer.drop(balancer.open[-1])
            told = json.loads((await ending)[0])
        finally:
            if process.returncode is None:
                process.kill()
    assert told["errors"] == []
    assert told["texts"] == [SAID] * 40
    assert balancer.dropped > 10
    assert told["resumed"] > 5
    assert told["histories"] == 0


async def test_a_rolling_restart_loses_no_turn(fake: Started, redis_server: str) -> None:
    servers = [fake(REDIS_URL=redis_server, SERVER="uvicorn") for _ in range(2)]
    for server in servers:
        server.spawn()
    for server in servers:
        await asyncio.to_thread(server.wait_ready, 90)
    async with balancing(*(server.port for server in servers)) as balancer:
        talkers = [Talker(balancer) for _ in range(16)]
        restarted = asyncio.Event()

        async def talk(talker: Talker) -> None:
            turn = 0
            while not restarted.is_set() or turn < 10:
                turn += 1
                await talker.say(f"number {turn}")

        async def restart() -> None:
            for server in servers:
                balancer.targets.remove(server.port)  # as the probe of a real balancer does
                server.signal(signal.SIGTERM)
                await asyncio.to_thread(server.wait, 60)
                server.spawn()
                await asyncio.to_thread(server.wait_ready, 90)
                balancer.targets.append(server.port)
            restarted.set()

        async with asyncio.timeout(240):
            await asyncio.gather(restart(), *(talk(talker) for talker in talkers))
        assert all(set(talker.texts) == {SAID} for talker in talkers)
        assert sum(talker.fallbacks for talker in talkers) == 0
        assert balancer.accepted >= 32
        assert balancer.dropped == 0
        for talker in talkers:
            await talker.dialogue.close()

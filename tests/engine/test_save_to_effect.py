"""From *Save* in the admin to its effect on a live connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.operator import Operator, operator
from tests.server import YapServer
from tests.wsclient import client

pytestmark = pytest.mark.engine
EDITS = 20


@pytest.fixture
def someone(tiny_server: YapServer) -> Iterator[Operator]:
    with operator(tiny_server) as made:
        yield made


def _report(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p50, p95 = ordered[len(ordered) // 2], ordered[round(0.95 * (len(ordered) - 1))]
    print(f"{what}: Save to effect p50 {p50 * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms, {len(ordered)} edits")
    assert p95 < 1.0


async def test_a_revoked_key_is_shown_the_door(tiny_server: YapServer, someone: Operator) -> None:
    code = (
        "from accounts.services import create_key\n"
        f"for _ in range({EDITS}):\n    row, full = create_key('leaked')\n    print(row.pk, full)"
    )
    keys = [line.split() for line in tiny_server.manage("shell", "-v", "0", "-c", code).splitlines()]
    took = []
    for row, full in keys:
        async with client(tiny_server.ws_url, full) as yap:
            assert (await yap.ask("ping"))["type"] == "pong"
            saved = time.perf_counter()
            saving = asyncio.create_task(asyncio.to_thread(someone.revoke, int(row)))
            assert (await yap.receive())["error_code"] == "key_revoked"
            took.append(time.perf_counter() - saved)
            assert await yap.closed() == 1008
            await saving
    _report("revoked key", took)


async def test_a_disabled_persona_is_unknown(tiny_server: YapServer, someone: Operator) -> None:
    path = "/admin/personas/persona/"
    code = "from personas.models import Persona as P; print(P.objects.get(slug='mia').pk)"
    row = int(tiny_server.manage("shell", "-v", "0", "-c", code))
    took = []
    async with client(tiny_server.ws_url, await asyncio.to_thread(_free_key, tiny_server)) as yap:

        async def known() -> bool:
            """Request the persona; a turn that starts is cancelled."""
            await yap.send("start", session_id="s", persona="mia", user_utterance="Hi")
            frame = await yap.receive()
            while frame["type"] not in ("ack", "error"):  # rest of the previous turn
                frame = await yap.receive()
            if frame["type"] == "error":
                await asyncio.sleep(0.05)  # a client that is refused 100 times in a minute is closed
            return bool(frame["type"] == "ack")

        for _ in range(EDITS):
            await asyncio.to_thread(someone.act, path, "enable", row)
            while not await known():
                pass
            saved = time.perf_counter()
            saving = asyncio.create_task(asyncio.to_thread(someone.act, path, "disable", row))
            while await known():  # as fast as the server answers
                pass
            took.append(time.perf_counter() - saved)
            await saving
    await asyncio.to_thread(someone.act, path, "enable", row)
    _report("disabled persona", took)


def _free_key(server: YapServer) -> str:
    """Create a key without a message limit."""
    return server.manage("createkey", "unlimited", "--max-messages", "0")

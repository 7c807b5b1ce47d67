"""A server with fake engines behind the consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest_asyncio

from accounts.callers import Caller, Limits
from accounts.connection_slots import MemoryConnectionSlots
from inference.admission import Admission
from inference.serving_context import ServingContext
from inference.session_registry import SessionRegistry
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import FREE, UNLIMITED, make_serving
from tests.fakes.socket import Socket, chat_application

SAID = "Hello there, how are you today?"
KEY = "key-one"


@dataclass
class Server:
    """A consumer, its doors and everything behind them."""

    serving: ServingContext
    slots: MemoryConnectionSlots
    registry: SessionRegistry
    admission: Admission
    chat: FakeEngine
    callers: dict[str, Caller]

    def socket(self, query: str = f"api_key={KEY}", **options: Any) -> Socket:
        return Socket(chat_application(self.serving, self.admission, self.registry), query, **options)

    async def connect(self, query: str = f"api_key={KEY}", **options: Any) -> Socket:
        socket = await self.socket(query, **options).connect()
        socket.say({"type": "ping"})
        await socket.until_type("pong")  # it has been let in
        socket.frames.clear()
        return socket

    async def taken(self) -> int:
        return (await self.slots.snapshot())["active"]

    async def free(self) -> None:
        """Everything that a connection held has been given back."""
        async with asyncio.timeout(1):
            await self.chat.wait_idle()
        assert await self.taken() == 0
        assert len(self.registry) == 0
        assert self.registry.running == 0


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    chat = FakeEngine(reply=SAID)
    serving = await make_serving(chat, None)
    own = Limits(FREE, FREE, FREE, connections=1)
    callers = {KEY: UNLIMITED, "key-two": replace(UNLIMITED, prefix="two", limits=own)}

    async def find(key: str, network: str) -> Caller | None:
        return callers.get(key)

    slots = MemoryConnectionSlots(2)
    yield Server(serving, slots, SessionRegistry(), Admission(find, slots, 0.02, 1008, 1013), chat, callers)
    await serving.engines.aclose()


async def refused(socket: Socket, code: str, close: int) -> dict[str, Any]:
    """Accepted first, then exactly one error, then closed."""
    await socket.connect()
    await socket.ended()
    assert socket.task is not None
    assert socket.task.exception() is None
    assert socket.accepted is not None
    assert [(frame["type"], frame["error_code"]) for frame in socket.frames] == [("error", code)]
    assert socket.closed is not None
    assert socket.closed["code"] == close
    return socket.frames[0]

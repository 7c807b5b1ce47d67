"""A client as thin as the protocol: sends what it is told to, well-formed or not, and hands back what comes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Frame = dict[str, Any]
PATIENCE_S = 60.0
PROMPT = "You are Ada, a friendly lighthouse keeper who likes short answers."
HELLO: Frame = {
    "type": "start", "session_id": "s1", "gender": "female", "personality": "warm", "chat_prompt": PROMPT,
}  # fmt: skip


@dataclass
class Answer:
    """The frames of one turn, ``ack`` (where there is one) to ``done``, with the second each came at."""

    frames: list[Frame] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """Types in order, neighbours that are equal as one."""
        kinds = [frame["type"] for frame in self.frames]
        return [kind for place, kind in enumerate(kinds) if not place or kinds[place - 1] != kind]

    @property
    def text(self) -> str:
        """What the token frames add up to."""
        return "".join(frame["text"] for frame in self.frames if frame["type"] == "token")

    def __getitem__(self, kind: str) -> Frame:
        """The one frame of this type."""
        (frame,) = [frame for frame in self.frames if frame["type"] == kind]
        return frame

    @property
    def usage(self) -> dict[str, Any]:
        """Of the ``done`` frame."""
        usage: dict[str, Any] = self["done"]["usage"]
        return usage


class Client:
    """One connection. Every frame it received is in ``seen``."""

    def __init__(self, line: ClientConnection) -> None:
        self.line = line
        self.seen: list[Frame] = []

    async def send(self, kind: str, **fields: Any) -> None:
        """One message."""
        await self.line.send(json.dumps({"type": kind, **fields}))

    async def start(self, utterance: str | None = None, **fields: Any) -> None:
        """A ``start`` with everything that a first one needs."""
        said = {} if utterance is None else {"user_utterance": utterance}
        await self.line.send(json.dumps({**HELLO, **said, **fields}))

    async def receive(self, patience_s: float = PATIENCE_S) -> Frame:
        """The next frame. Raises ``ConnectionClosed``."""
        async with asyncio.timeout(patience_s):
            frame: Frame = json.loads(await self.line.recv())
        self.seen.append(frame)
        return frame

    async def until(self, kind: str, patience_s: float = PATIENCE_S) -> Answer:
        """Everything up to and with the next frame of this type. An ``error`` that belongs to no turn is not waited
        through."""
        answer = Answer()
        while not answer.frames or answer.frames[-1]["type"] != kind:
            answer.frames.append(await self.receive(patience_s))
            answer.times.append(time.perf_counter())
            last = answer.frames[-1]
            assert kind == "error" or last["type"] != "error" or "turn" in last, last
        return answer

    async def say(self, utterance: str | None = None, **fields: Any) -> Answer:
        """One whole turn."""
        await self.start(utterance, **fields)
        return await self.until("done")

    async def ask(self, kind: str, **fields: Any) -> Frame:
        """One message and the next frame."""
        await self.send(kind, **fields)
        return await self.receive()

    async def closed(self, patience_s: float = PATIENCE_S) -> int:
        """The close code; frames that still come are in ``seen``."""
        try:
            while True:
                await self.receive(patience_s)
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd else 1006

    def vanish(self) -> None:
        """Go without a word: the TCP connection is reset, no close frame is sent."""
        self.line.transport.abort()


@asynccontextmanager
async def client(url: str, key: str | None = None, **options: Any) -> AsyncIterator[Client]:
    """A connection with the key in a header; ``options`` go to ``websockets``."""
    defaults: dict[str, Any] = {"ping_interval": None, "open_timeout": PATIENCE_S, "close_timeout": 5}
    if key is not None:
        defaults["additional_headers"] = {"X-API-Key": key}
    async with connect(url, **{**defaults, **options}) as line:
        yield Client(line)

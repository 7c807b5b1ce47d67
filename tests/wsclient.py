"""A minimal protocol client: sends any text, well-formed or not, and returns the frames."""

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
    """The frames of one turn, from `ack` (if any) to `done`, each with its arrival in seconds."""

    frames: list[Frame] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """Return the types in order; equal neighbours count once."""
        kinds = [frame["type"] for frame in self.frames]
        return [kind for place, kind in enumerate(kinds) if not place or kinds[place - 1] != kind]

    @property
    def text(self) -> str:
        """Return the token texts together."""
        return "".join(frame["text"] for frame in self.frames if frame["type"] == "token")

    def __getitem__(self, kind: str) -> Frame:
        """Return the only frame of this type."""
        (frame,) = [frame for frame in self.frames if frame["type"] == kind]
        return frame

    @property
    def usage(self) -> dict[str, Any]:
        """Return the usage of the `done` frame."""
        usage: dict[str, Any] = self["done"]["usage"]
        return usage


class Client:
    """One connection. `seen` holds every received frame."""

    def __init__(self, line: ClientConnection) -> None:
        self.line = line
        self.seen: list[Frame] = []

    async def send(self, kind: str, **fields: Any) -> None:
        """Send one message."""
        await self.line.send(json.dumps({"type": kind, **fields}))

    async def start(self, utterance: str | None = None, **fields: Any) -> None:
        """Send a `start` with all fields that the first one needs."""
        said = {} if utterance is None else {"user_utterance": utterance}
        await self.line.send(json.dumps({**HELLO, **said, **fields}))

    async def receive(self, patience_s: float = PATIENCE_S) -> Frame:
        """Receive the next frame.

        Raises:
            ConnectionClosed: the server closed the connection.
        """
        async with asyncio.timeout(patience_s):
            frame: Frame = json.loads(await self.line.recv())
        self.seen.append(frame)
        return frame

    async def until(self, kind: str, patience_s: float = PATIENCE_S) -> Answer:
        """Receive up to and including the next frame of this type. An `error` outside a turn ends the wait."""
        answer = Answer()
        while not answer.frames or answer.frames[-1]["type"] != kind:
            answer.frames.append(await self.receive(patience_s))
            answer.times.append(time.perf_counter())
            last = answer.frames[-1]
            assert kind == "error" or last["type"] != "error" or "turn" in last, last
        return answer

    async def say(self, utterance: str | None = None, **fields: Any) -> Answer:
        """Run one whole turn."""
        await self.start(utterance, **fields)
        return await self.until("done")

    async def ask(self, kind: str, **fields: Any) -> Frame:
        """Send one message and return the next frame."""
        await self.send(kind, **fields)
        return await self.receive()

    async def closed(self, patience_s: float = PATIENCE_S) -> int:
        """Wait for the close code; `seen` gets the remaining frames."""
        try:
            while True:
                await self.receive(patience_s)
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd else 1006

    def vanish(self) -> None:
        """Reset the TCP connection without a close frame."""
        self.line.transport.abort()


@asynccontextmanager
async def client(url: str, key: str | None = None, **options: Any) -> AsyncIterator[Client]:
    """Connect with the key in a header; `options` go to `websockets`."""
    defaults: dict[str, Any] = {"ping_interval": None, "open_timeout": PATIENCE_S, "close_timeout": 5}
    if key is not None:
        defaults["additional_headers"] = {"X-API-Key": key}
    async with connect(url, **{**defaults, **options}) as line:
        yield Client(line)

"""An ASGI client of the OpenAI surface over fake engines, and the surface itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from accounts.callers import Caller
from accounts.connection_slots import MemoryConnectionSlots
from inference.admission import Admission
from inference.openai.context import OpenAIContext
from inference.openai.cross_origin import CrossOrigin
from inference.openai.records import RecordStore
from inference.openai.sse import Headers
from inference.openai.surface import OpenAISurface
from inference.session_registry import SessionRegistry
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import UNLIMITED, make_serving

KEY = "key-one"
SAID = "Hello there, how are you today?"
HI = [{"role": "user", "content": "hi"}]


@dataclass
class Reply:
    """One response as a client sees it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of all events; ``[DONE]`` as text."""
        found = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in found]

    @property
    def text(self) -> str:
        """The text of a streamed chat completion."""
        chunks = [event["choices"][0]["delta"] for event in self.events if event != "[DONE]" and event["choices"]]
        return "".join(delta.get("content") or "" for delta in chunks)


class Request:
    """One running request. :attr:`reply` grows while the server answers."""

    def __init__(
        self, app: Any, method: str, path: str, body: bytes, key: str | None, send: Any = None, headers: Headers = ()
    ) -> None:
        self.reply = Reply()
        self._gone = asyncio.Event()
        self._changed = asyncio.Condition()
        self._inbox: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [*headers, *([] if key is None else [(b"authorization", f"Bearer {key}".encode())])],
            "client": ["127.0.0.1", 1],
        }
        self.task = asyncio.create_task(app(scope, self._receive, send or self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._inbox:
            return self._inbox.pop(0)
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.reply.status = message["status"]
            self.reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.reply.body += message["body"]
            self.reply.ended = not message["more_body"]
        async with self._changed:
            self._changed.notify_all()

    async def until(self, seen: Any) -> Reply:
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: seen(self.reply))
        return self.reply

    def leave(self) -> None:
        self._gone.set()

    async def end(self) -> Reply:
        async with asyncio.timeout(5):
            await self.task
        return self.reply


@dataclass
class Surface:
    """The surface and all behind it."""

    context: OpenAIContext
    app: OpenAISurface
    chat: FakeEngine
    tool: FakeEngine | None
    slots: MemoryConnectionSlots
    callers: dict[str, Caller]

    def begin(
        self,
        path: str,
        fields: Any = None,
        *,
        method: str = "POST",
        key: str | None = KEY,
        raw: bytes | None = None,
        send: Any = None,
        headers: Headers = (),
    ) -> Request:
        body = raw if raw is not None else b"" if fields is None else json.dumps(fields).encode()
        return Request(self.app, method, path, body, key, send, headers)

    async def post(self, path: str, fields: Any = None, **options: Any) -> Reply:
        return await self.begin(path, fields, **options).end()

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.begin(path, method="GET", **options).end()

    async def chat_completion(self, **fields: Any) -> Reply:
        return await self.post("/v1/chat/completions", {"model": "anna", "messages": HI, **fields})

    async def all_free(self) -> None:
        """Check that every slot and registry entry was given back."""
        async with asyncio.timeout(2):
            await self.chat.wait_idle()
        assert (await self.slots.snapshot())["active"] == 0
        assert len(self.context.registry) == 0


@asynccontextmanager
async def surface(
    chat: FakeEngine | None = None,
    tool: FakeEngine | None = None,
    *,
    caller: Caller = UNLIMITED,
    slots: int = 4,
    records: int = 100,
    default_model: str = "",
    origins: tuple[str, ...] = (),
    **serving: Any,
) -> AsyncIterator[Surface]:
    """A surface over fake engines, with one key."""
    chat = chat or FakeEngine(reply=SAID)
    context = await make_serving(chat, tool, **serving)
    callers = {KEY: caller}

    async def find(key: str, network: str) -> Caller | None:
        return callers.get(key)

    memory = MemoryConnectionSlots(slots)
    parts = OpenAIContext(
        context, Admission(find, memory, 0.02, 1008, 1013), SessionRegistry(), RecordStore(records), default_model,
        cross_origin=CrossOrigin(origins),
    )  # fmt: skip
    yield Surface(parts, OpenAISurface(parts), chat, tool, memory, callers)
    await context.engines.aclose()

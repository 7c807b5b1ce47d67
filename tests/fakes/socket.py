"""The client's end of a WebSocket, connected to an ASGI application in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from inference.admission import Admission
from inference.consumer import ChatConsumer
from inference.serving_context import ServingContext
from inference.session_registry import SessionRegistry

Application = Callable[..., Any]


class Socket:
    """One connection. `frames` are dicts; `accepted` and `closed` are the ASGI messages that accepted and closed it."""

    def __init__(
        self,
        application: Application,
        query: str = "",
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        path: str = "/ws",
        extensions: Sequence[str] = (),
    ) -> None:
        self.batches: list[int] = []  # lengths of what the application sent together
        self.frames: list[dict[str, Any]] = []
        self.accepted: dict[str, Any] | None = None
        self.closed: dict[str, Any] | None = None
        self.broken: Exception | None = None  # raised by every further send
        self._application = application
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._arrived = asyncio.Condition()
        self._scope = {
            "type": "websocket",
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            "subprotocols": list(subprotocols),
            "client": ["127.0.0.1", 5],
            "extensions": {name: {} for name in extensions},
        }
        self.task: asyncio.Task[None] | None = None

    async def connect(self) -> Socket:
        """Connect; returns once the connection is accepted or over."""
        self._inbox.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(self._application(self._scope, self._inbox.get, self._send))
        await self.until(lambda: self.accepted is not None or self.closed is not None)
        return self

    async def until(self, seen: Callable[[], bool]) -> None:
        """Wait until a condition on the frames holds."""
        async with asyncio.timeout(5), self._arrived:
            await self._arrived.wait_for(seen)

    async def until_type(self, kind: str) -> dict[str, Any]:
        """Wait for the first frame of this type."""
        await self.until(lambda: any(frame["type"] == kind for frame in self.frames))
        return next(frame for frame in self.frames if frame["type"] == kind)

    def say(self, message: dict[str, Any] | str | bytes) -> None:
        """Send one frame as the client."""
        if isinstance(message, bytes):
            self._inbox.put_nowait({"type": "websocket.receive", "bytes": message})
        else:
            text = message if isinstance(message, str) else json.dumps(message)
            self._inbox.put_nowait({"type": "websocket.receive", "text": text})

    async def leave(self) -> None:
        """Disconnect the client; returns when the application has ended."""
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": 1006})
        await self.ended()

    async def ended(self) -> None:
        """Wait until the application has ended, with or without an error."""
        assert self.task is not None
        async with asyncio.timeout(5):
            await asyncio.wait({self.task})

    async def _send(self, message: dict[str, Any]) -> None:
        if self.broken is not None:
            raise self.broken
        async with self._arrived:
            if message["type"] == "websocket.accept":
                assert self.accepted is None
                self.accepted = message
            elif message["type"] == "websocket.send":
                assert self.accepted is not None, "a frame before the accept"
                assert self.closed is None, f"a frame after the close: {message}"
                texts = message.get("texts") or [message["text"]]
                self.batches.append(len(texts))
                self.frames += map(json.loads, texts)
            else:
                assert message["type"] == "websocket.close"
                assert self.closed is None, "closed twice"
                self.closed = message
            self._arrived.notify_all()


def chat_application(
    serving: ServingContext, admission: Admission, registry: SessionRegistry | None = None
) -> Application:
    """Return the consumer as an ASGI application."""
    application: Application = ChatConsumer.as_asgi(
        serving=serving, admission=admission, registry=SessionRegistry() if registry is None else registry
    )
    return application

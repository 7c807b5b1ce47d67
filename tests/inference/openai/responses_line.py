"""A Responses connection without its socket: events as dicts, each validated by OpenAI's types."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from openai.types.responses import ResponsesServerEvent
from pydantic import TypeAdapter

from accounts.callers import Caller
from inference.openai.responses_session import ResponsesSession
from inference.serving_context import SessionPolicy
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import UNLIMITED
from tests.inference.openai.exchange import Surface, surface

EVENT: TypeAdapter[Any] = TypeAdapter(ResponsesServerEvent)
LAST = ("response.completed", "response.incomplete", "response.failed", "error")
Event = dict[str, Any]


class ResponsesLine:
    """One connection."""

    def __init__(self, parts: Surface, caller: Caller = UNLIMITED, model: str | None = "anna") -> None:
        self.events: list[Event] = []
        self.closed: int | None = None
        self._arrived = asyncio.Condition()
        self.session = ResponsesSession(parts.context, caller, self._receive, self._close, model)
        self.session.open()

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed the connection."""
        return self.closed is not None

    async def _receive(self, events: str) -> None:
        assert events.endswith("\n")
        for text in events.splitlines():
            event = json.loads(text)
            EVENT.validate_python(event, strict=True)
            self.events.append(event)
        await self._notify()

    async def _close(self, code: int) -> None:
        self.closed = code
        await self._notify()

    async def _notify(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()

    async def say(self, event: Event | str | None) -> None:
        """One frame from the client."""
        await self.session.receive(json.dumps(event) if isinstance(event, dict) else event)

    async def create(self, value: Any = "hi", /, **fields: Any) -> None:
        """Send a ``response.create``."""
        await self.say({"type": "response.create", "input": value, **fields})

    async def cancel(self, response_id: str | None = None) -> None:
        """Send a ``response.cancel``."""
        named = {} if response_id is None else {"response_id": response_id}
        await self.say({"type": "response.cancel", **named})

    async def until(self, seen: Callable[[list[Event]], bool]) -> None:
        """Wait until the events satisfy ``seen``."""
        async with asyncio.timeout(5), self._arrived:
            await self._arrived.wait_for(lambda: seen(self.events))

    async def until_type(self, kind: str, count: int = 1) -> Event:
        """Return the ``count``-th event of this type."""
        await self.until(lambda events: sum(event["type"] == kind for event in events) >= count)
        return [event for event in self.events if event["type"] == kind][count - 1]

    async def until_ended(self, count: int) -> list[Event]:
        """Return the last events of the responses, as soon as ``count`` requests have been answered."""
        await self.until(lambda events: len(endings(events)) >= count)
        return endings(self.events)

    async def turn(self, value: Any = "hi", /, **fields: Any) -> Event:
        """Send a request and return the last event of its answer."""
        before = len(endings(self.events))
        await self.create(value, **fields)
        return (await self.until_ended(before + 1))[-1]

    def text_of(self, response_id: str) -> str:
        """Return the deltas of one response."""
        found, inside = "", False
        for event in self.events:
            if event["type"] == "response.created":
                inside = event["response"]["id"] == response_id
            if inside and event["type"] == "response.output_text.delta":
                found += event["delta"]
        return found


def said(ended: Event) -> str:
    """The text of a response's output."""
    return "".join(part["text"] for item in ended["response"]["output"] for part in item.get("content", ()))


def endings(events: list[Event]) -> list[Event]:
    return [event for event in events if event["type"] in LAST]


def check_lane(events: list[Event]) -> None:
    """Responses come one after another, each numbered from 0 and with one end."""
    running, number = False, 0
    for event in events:
        if event["type"] == "error":
            continue
        if event["type"] == "response.created":
            assert not running, "a response begins inside of another one"
            running, number = True, 0
        assert running, f"{event['type']} outside of a response"
        assert event["sequence_number"] == number
        number += 1
        if event["type"] in LAST:
            running = False


@asynccontextmanager
async def connected(
    chat: FakeEngine | None = None,
    tool: FakeEngine | None = None,
    *,
    caller: Caller = UNLIMITED,
    turn: TurnPolicy | None = None,
    **options: Any,
) -> AsyncIterator[ResponsesLine]:
    """A connection to a server with these engines."""
    if turn is not None:
        options["policy"] = SessionPolicy(turn=turn)
    async with surface(chat, tool, **options) as parts:
        line = ResponsesLine(parts, caller)
        try:
            yield line
            check_lane(line.events)
        finally:
            await line.session.aclose()

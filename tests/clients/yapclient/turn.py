"""One turn as an async iterator of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from yapclient.errors import ReplyTimeout, RequestRefused, TurnFailed, YapError
from yapclient.events import Ack, Done, Error, Event, Final, Token, ToolCall
from yapclient.timing import Timing

if TYPE_CHECKING:
    from yapclient.connection import Connection


class Exchange:
    """A message that waits for its answers. ``takes`` says which frames can be an answer, where they do not say so
    themselves by ``request_id``."""

    def __init__(self, request_id: str, takes: Callable[[Event], bool]) -> None:
        self.request_id = request_id
        self.takes = takes
        self.queue: asyncio.Queue[Event | YapError] = asyncio.Queue()
        self.ended = False
        self.may_be_cancelled = False  # something was sent that ends it

    def put(self, event: Event) -> None:
        """An answer came; the first one is the last, unless a subclass knows better."""
        self.queue.put_nowait(event)
        self.ended = True

    async def get(self, server: str, timeout: float) -> Event:
        """The next answer. Raises what ended the connection, or :class:`ReplyTimeout`."""
        if self.queue.empty():
            try:
                item = await asyncio.wait_for(self.queue.get(), timeout)
            except asyncio.TimeoutError:
                raise ReplyTimeout(server, timeout) from None
        else:
            item = self.queue.get_nowait()
        if isinstance(item, YapError):
            raise item
        return item


class _TurnExchange(Exchange):
    def __init__(self, request_id: str) -> None:
        super().__init__(request_id, lambda event: isinstance(event, (Ack, ToolCall, Token, Final, Done, Error)))
        self.begun = False

    def put(self, event: Event) -> None:
        self.queue.put_nowait(event)
        # An error before anything else refuses the message, and nothing follows it. Later, `done` follows.
        refused = isinstance(event, Error) and not self.begun and event.turn is None
        self.begun = True
        self.ended = refused or isinstance(event, Done)


class Turn:
    """Iterate it for events until the turn is over; it is sent when that begins, or by :meth:`send`.

    What was iterated is kept: ``text`` (the tokens), ``ack``, ``tool``, ``final``, ``done``, ``error``, ``timing``.
    """

    def __init__(self, connection: Connection, message: dict[str, Any]) -> None:
        self._connection = connection
        self._message = message
        self.exchange = _TurnExchange(str(message["request_id"]))
        self.text = ""
        self.ack: Ack | None = None
        self.tool: ToolCall | None = None
        self.final: Final | None = None
        self.done: Done | None = None
        self.error: Error | None = None
        self.timing = Timing(started=0.0)

    @property
    def sent(self) -> bool:
        """Whether it has left for the server."""
        return self.timing.started > 0

    @property
    def running(self) -> bool:
        """Whether it was sent and its last frame has not arrived yet."""
        return self.sent and not self.exchange.ended

    @property
    def usage(self) -> dict[str, Any]:
        """The server's own numbers; empty before the end, or where it gives none."""
        return self.done.usage if self.done else {}

    @property
    def reply(self) -> str:
        """The reply as the server settled it: ``final`` where it came, else what the tokens add up to."""
        return self.text if self.final is None or self.final.text is None else self.final.text

    @property
    def cancelled(self) -> bool:
        """Whether it was cut short, by a cancel or by the next turn."""
        return self.done is not None and self.done.cancelled

    async def send(self) -> Turn:
        """Send it now; the clock starts here. A running turn of the connection is thereby interrupted."""
        if not self.sent:
            self.timing.started = time.perf_counter()
            await self._connection.submit(self.exchange, self._message, self)
        return self

    async def cancel(self, heard: int | None = None) -> None:
        """Stop it; what the server still sends of it can be iterated, `done` last. ``heard`` as in `barge_in`."""
        if self.running:
            await self._connection.cancel(heard)

    async def finish(self) -> Turn:
        """Iterate to the end. Raises :class:`RequestRefused` or :class:`TurnFailed` where it ended in an error."""
        async for _ in self:
            pass
        if self.error is not None:
            kind = RequestRefused if self.done is None else TurnFailed
            raise kind(self.error.code, self.error.message, self.error.retry_in)
        return self

    def __aiter__(self) -> Turn:
        return self

    async def __anext__(self) -> Event:
        await self.send()
        if self.exchange.ended and self.exchange.queue.empty():
            raise StopAsyncIteration
        event = await self.exchange.get(str(self._connection.server), self._connection.timeout)
        if isinstance(event, Token):
            self.text += event.text
            self.timing.token(event.text, event.at)
        elif isinstance(event, Ack):
            self.ack = event
        elif isinstance(event, ToolCall):
            self.tool = event
            self.timing.toolcall = event.at
        elif isinstance(event, Final):
            self.final = event
        elif isinstance(event, Error):
            self.error = event
        elif isinstance(event, Done):
            self.done = event
            self.timing.end(event.at)
        return event

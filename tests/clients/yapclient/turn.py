"""One turn as an async iterator of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from yapclient.errors import ConnectionLost, ReplyTimeout, RequestRefused, TurnFailed, YapError
from yapclient.events import Ack, Done, Error, Event, Final, Token, ToolCall
from yapclient.timing import Timing

if TYPE_CHECKING:
    from yapclient.connection import Connection


Recovery = Callable[["Turn", "Event | ConnectionLost"], Awaitable[bool]]
"""Sees each event of a turn, or the loss of its connection, first; True where the turn goes on without it."""


class Exchange:
    """A message and the queue of its answers.

    `takes` decides whether a frame without `request_id` can be an answer.
    """

    def __init__(self, request_id: str, takes: Callable[[Event], bool]) -> None:
        self.request_id = request_id
        self.takes = takes
        self.queue: asyncio.Queue[Event | YapError] = asyncio.Queue()
        self.ended = False
        self.may_be_cancelled = False  # a later message ends it

    def put(self, event: Event) -> None:
        """Queue an answer and end the exchange; subclasses may expect more answers."""
        self.queue.put_nowait(event)
        self.ended = True

    async def get(self, server: str, timeout: float) -> Event:
        """Wait for the next answer.

        Args:
            server: address for the error message.
            timeout: seconds.

        Raises:
            ReplyTimeout: no answer within the timeout.
            YapError: the connection ended.
        """
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
        # An error as first frame refuses the message and ends the exchange. A later error is followed by `done`.
        refused = isinstance(event, Error) and not self.begun and event.turn is None
        self.begun = True
        self.ended = refused or isinstance(event, Done)


class Turn:
    """One turn. Iterate it for events until the turn ends; iteration or :meth:`send` sends the message.

    Iterated events are kept: `text` (all tokens), `ack`, `tool`, `final`, `done`, `error`, `timing`. `number` is the
    server's number of the turn, `resumed` counts the lost connections that the turn has survived.
    """

    def __init__(self, connection: Connection, message: dict[str, Any], recovery: Recovery | None = None) -> None:
        self._connection = connection
        self._message = message
        self._recovery = recovery
        self.number: int | None = None
        self.resumed = 0
        self.exchange = _TurnExchange(str(message["request_id"]))
        self.text = ""
        self.ack: Ack | None = None
        self.tool: ToolCall | None = None
        self.final: Final | None = None
        self.done: Done | None = None
        self.error: Error | None = None
        self.timing = Timing(started=0.0)

    @property
    def kind(self) -> str:
        """The type of the message: `start` or `followup`."""
        return str(self._message["type"])

    @property
    def has_history(self) -> bool:
        """Whether the message replaces the server's history."""
        return "history_text" in self._message

    @property
    def sent(self) -> bool:
        """Whether the message was sent."""
        return self.timing.started > 0

    @property
    def running(self) -> bool:
        """Whether the message was sent and its last frame has not arrived."""
        return self.sent and not self.exchange.ended

    @property
    def usage(self) -> dict[str, Any]:
        """The server's figures; empty before the end, or if the server reports none."""
        return self.done.usage if self.done else {}

    @property
    def reply(self) -> str:
        """The reply: the text of `final` if it arrived, else all tokens."""
        return self.text if self.final is None or self.final.text is None else self.final.text

    @property
    def cancelled(self) -> bool:
        """Whether a cancel or the next turn ended it."""
        return self.done is not None and self.done.cancelled

    async def send(self) -> Turn:
        """Send the message and start the clock; a running turn of the connection is interrupted."""
        if not self.sent:
            self.timing.started = time.perf_counter()
            await self._connection.submit(self.exchange, self._message, self)
        return self

    async def cancel(self, heard: int | None = None) -> None:
        """Stop the turn; remaining events can still be iterated, `done` last.

        Args:
            heard: characters of the reply that the user heard; None: all that was sent.
        """
        if self.running:
            await self._connection.cancel(heard)

    async def finish(self) -> Turn:
        """Iterate to the end.

        Raises:
            RequestRefused: the server refused the message.
            TurnFailed: the turn ended in an error.
        """
        async for _ in self:
            pass
        if self.error is not None:
            kind = RequestRefused if self.done is None else TurnFailed
            raise kind(self.error.code, self.error.message, self.error.retry_in)
        return self

    async def send_again(self, connection: Connection, changes: dict[str, Any]) -> None:
        """Send the message on another connection, or once more, with other fields. Earlier events do not count."""
        self._message = {**self._message, **changes, "request_id": connection.next_id()}
        await self._submit(connection, self._message)

    async def resume(self, connection: Connection, number: int) -> Ack | None:
        """Ask on another connection for the rest of the turn.

        Args:
            connection: the new connection.
            number: the server's number of the turn.

        Returns:
            The answer; None where the server knows no such turn.

        Raises:
            RequestRefused: the server refused the message.
        """
        message = {"type": "resume", "session_id": connection.session_id, "turn": number, "received": len(self.text)}
        # The server repeats the request_id of the `start` in the turn's frames, so the answer has the same one.
        await self._submit(connection, {**message, "request_id": self._message["request_id"]})
        event = await self.exchange.get(str(connection.server), connection.timeout)
        if isinstance(event, Error):
            if event.code in ("unknown_session", "unknown_message_type"):
                return None
            raise RequestRefused(event.code, event.message, event.retry_in)
        assert isinstance(event, Ack)
        self._take(event)
        self.resumed += 1
        return event

    async def _submit(self, connection: Connection, message: dict[str, Any]) -> None:
        self._connection = connection
        self.exchange = _TurnExchange(str(message["request_id"]))
        await connection.submit(self.exchange, message, self)

    def __aiter__(self) -> Turn:
        return self

    async def __anext__(self) -> Event:
        while True:
            try:
                await self.send()
                if self.exchange.ended and self.exchange.queue.empty():
                    raise StopAsyncIteration
                event = await self.exchange.get(str(self._connection.server), self._connection.timeout)
            except ConnectionLost as lost:
                if self._recovery is None or not await self._recovery(self, lost):
                    raise
                continue
            if self._recovery is not None and await self._recovery(self, event):
                continue
            if not (isinstance(event, ToolCall) and self.tool is not None and self.resumed):  # else told once more
                return self._take(event)

    def _take(self, event: Event) -> Event:
        self.number = event.turn or self.number
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

"""One connection to a Yap server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from collections.abc import Mapping
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from yapclient.address import Server
from yapclient.errors import ConnectionLost, RequestRefused, YapError
from yapclient.events import Ack, Done, Draining, Error, Event, Pong, Warmed, decode
from yapclient.persona import Persona
from yapclient.turn import Exchange, Recovery, Turn


class Connection:
    """An open connection; create one with :func:`connect` or :func:`open_connection`.

    A server that omits `request_id` works too: its answers then belong to the oldest open message.
    """

    def __init__(self, server: Server, line: ClientConnection, timeout: float) -> None:
        self.server = server
        self.session_id = f"cli-{uuid.uuid4().hex[:12]}"
        self.lost: YapError | None = None
        self.current: Turn | None = None
        self.line = line
        self.timeout = timeout
        self._ids = itertools.count(1)
        self._open: list[Exchange] = []
        self.last_error: Error | None = None
        self.draining: Draining | None = None
        self.reader = asyncio.create_task(self._read())

    # -- conversation ------------------------------------------------------------------------------------------------

    def turn(
        self,
        text: str = "",
        *,
        persona: Persona | None = None,
        history: str | None = None,
        sampling: Mapping[str, float] | None = None,
        heard: int | None = None,
        recovery: Recovery | None = None,
        **fields: Any,
    ) -> Turn:
        """Create a turn; iterate it for events.

        Args:
            text: the user's message; empty: the character speaks first.
            persona: required for the first turn of a session; None: keep the session's persona.
            history: `User: …` and `Assistant: …` lines that replace the server's history; None: keep it.
            sampling: sampling values for the session; None: keep them.
            heard: characters of the last reply that the user heard; None: all that was sent.
            recovery: lets the turn go on when its connection is lost; None: the turn ends with the connection.
            fields: further fields of the message, such as `tool_prompt` and `user_identity`.
        """
        message: dict[str, Any] = {
            "type": "start",
            "request_id": self.next_id(),
            "session_id": self.session_id,
            "user_utterance": text,
            **(persona.fields if persona else {}),
            **fields,
        }
        optional = {"history_text": history, "sampling": dict(sampling) if sampling else None, "heard": heard}
        message.update({key: value for key, value in optional.items() if value is not None})
        return Turn(self, message, recovery)

    async def barge_in(self, text: str, *, heard: int | None = None, **options: Any) -> Turn:
        """Interrupt the running turn with the next one, and send it.

        Args:
            text: the user's message.
            heard: characters of the running reply that the user heard; None: the characters iterated so far.
            options: as in :meth:`turn`.

        Returns:
            The new turn. The interrupted turn ends with its `done`.
        """
        if heard is None and self.current is not None and self.current.running:
            heard = len(self.current.text)
        return await self.turn(text, heard=heard, **options).send()

    def followup(self, analysis: str, recovery: Recovery | None = None) -> Turn:
        """Create the turn after a tool's yes; `analysis` is the tool's result, `recovery` as in :meth:`turn`."""
        message = {"type": "followup", "request_id": self.next_id(), "analysis_text": analysis}
        return Turn(self, message, recovery)

    async def cancel(self, heard: int | None = None) -> None:
        """Stop the running turn, which then ends with a cancelled `done`. Idempotent.

        Args:
            heard: characters of the reply that the user heard; None: all that was sent.
        """
        message: dict[str, Any] = {"type": "cancel", "request_id": f"cancel-{self.next_id()}"}
        if heard is not None:
            message["heard"] = heard
        for exchange in self._open:
            exchange.may_be_cancelled = True
        await self._write(message)

    async def chat_prompt(self, persona: Persona) -> Ack:
        """Change the persona; the history stays.

        Raises:
            RequestRefused: the server refused the change; `retry_in` is set at a rate limit.
        """
        answer = await self._ask({"type": "chat_prompt", **persona.fields}, Ack)
        assert isinstance(answer, Ack)
        if not answer.ok:
            raise RequestRefused(answer.error_code or f"code {answer.code}", answer.message, answer.retry_in)
        return answer

    async def warm_persona(self, chat_prompt: str) -> Warmed:
        """Ask the server to compute the prefix of this persona ahead."""
        answer = await self._ask({"type": "warm_persona", "chat_prompt": chat_prompt}, Warmed)
        assert isinstance(answer, Warmed)
        return answer

    async def warm_history(self, history: str) -> Warmed:
        """Ask the server to compute the prefix of this history ahead."""
        answer = await self._ask({"type": "warm_history", "history_text": history}, Warmed)
        assert isinstance(answer, Warmed)
        return answer

    async def ping(self) -> float:
        """Measure the round trip time; returns seconds."""
        start = time.perf_counter()
        return (await self._ask({"type": "ping"}, Pong)).at - start

    async def wait_lost(self) -> YapError | None:
        """Wait until the connection ends; returns the reason."""
        await asyncio.shield(self.reader)
        return self.lost

    async def close(self) -> None:
        """Send `end` and close the connection."""
        with contextlib.suppress(YapError):
            await self._write({"type": "end"})
            await asyncio.wait({self.reader}, timeout=1.0)
        await self.line.close()
        await self.reader

    # -- internals ---------------------------------------------------------------------------------------------------

    async def submit(self, exchange: Exchange, message: dict[str, Any], turn: Turn | None = None) -> None:
        """Send a message whose answers go to `exchange`."""
        self.current = turn or self.current
        if message["type"] in ("start", "followup"):
            for other in self._open:
                other.may_be_cancelled = True
        self._open.append(exchange)
        await self._write(message)

    def next_id(self) -> str:
        """Return a new `request_id`."""
        return f"r{next(self._ids)}"

    async def _ask(self, message: dict[str, Any], answer: type[Event]) -> Event:
        """Send a message that has one answer.

        Raises:
            RequestRefused: the answer is an error.
        """
        message["request_id"] = self.next_id()
        exchange = Exchange(message["request_id"], lambda event: isinstance(event, (answer, Error)))
        await self.submit(exchange, message)
        try:
            event = await exchange.get(str(self.server), self.timeout)
        finally:
            if exchange in self._open:
                self._open.remove(exchange)
        if isinstance(event, Error):
            raise RequestRefused(event.code, event.message, event.retry_in)
        return event

    async def _write(self, message: dict[str, Any]) -> None:
        try:
            await self.line.send(orjson.dumps(message).decode())
        except ConnectionClosed:
            await self.reader
            raise self.lost or ConnectionLost(str(self.server), None) from None

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for data in self.line:
                self._deliver(decode(data, time.perf_counter()))
        code, error = self.line.close_code, self.last_error
        reason = error.message if error and error.message else self.line.close_reason or ""
        named, reconnect_in = error.code if error else None, None
        if self.draining is not None:
            named, reason, reconnect_in = "server_draining", "", self.draining.reconnect_in
        self.lost = ConnectionLost(str(self.server), code, reason, named, reconnect_in)
        for exchange in self._open:
            exchange.queue.put_nowait(self.lost)

    def _deliver(self, event: Event) -> None:
        exchange = self._owner(event)
        if isinstance(event, Error):
            self.last_error = event
        elif isinstance(event, Draining):
            self.draining = event
        if exchange is not None:
            exchange.put(event)
            if exchange.ended:
                self._open.remove(exchange)

    def _owner(self, event: Event) -> Exchange | None:
        if event.request_id is not None:
            return next((exchange for exchange in self._open if exchange.request_id == event.request_id), None)
        # The server also answers a cancel without a running turn; that `done` does not belong to the next turn.
        stray = isinstance(event, Done) and event.cancelled
        return next((each for each in self._open if each.takes(event) and (each.may_be_cancelled or not stray)), None)

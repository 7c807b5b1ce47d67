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
from yapclient.events import Ack, Done, Error, Event, Pong, Warmed, decode
from yapclient.persona import Persona
from yapclient.turn import Exchange, Turn


class Connection:
    """An open connection; get one from :func:`connect` or :func:`open_connection`.

    A server that leaves out `request_id` is understood too: its answers then belong to the oldest open message.
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
        self.reader = asyncio.create_task(self._read())

    # -- what a conversation needs -----------------------------------------------------------------------------------

    def turn(
        self,
        text: str = "",
        *,
        persona: Persona | None = None,
        history: str | None = None,
        sampling: Mapping[str, float] | None = None,
        heard: int | None = None,
        **fields: Any,
    ) -> Turn:
        """A turn, to be iterated. Without text the character speaks first. The first turn needs a persona.

        ``history`` (`User: …` / `Assistant: …` lines) replaces the server's record; ``heard`` is how many characters of
        the last reply the user heard; ``fields`` go into the message as they are (``tool_prompt``, ``user_identity``).
        """
        message: dict[str, Any] = {
            "type": "start",
            "request_id": self._next_id(),
            "session_id": self.session_id,
            "user_utterance": text,
            **(persona.fields if persona else {}),
            **fields,
        }
        optional = {"history_text": history, "sampling": dict(sampling) if sampling else None, "heard": heard}
        message.update({key: value for key, value in optional.items() if value is not None})
        return Turn(self, message)

    async def barge_in(self, text: str, *, heard: int | None = None, **options: Any) -> Turn:
        """Interrupt what is being said with the next turn, already sent; options as in :meth:`turn`.

        ``heard`` is, unless given, what was iterated of the running reply. The interrupted turn ends with its `done`.
        """
        if heard is None and self.current is not None and self.current.running:
            heard = len(self.current.text)
        return await self.turn(text, heard=heard, **options).send()

    def followup(self, analysis: str) -> Turn:
        """The turn that goes on after a tool's yes, with what the tool found."""
        return Turn(self, {"type": "followup", "request_id": self._next_id(), "analysis_text": analysis})

    async def cancel(self, heard: int | None = None) -> None:
        """Stop what is running. Idempotent; the running turn ends with a `done` that says cancelled."""
        message: dict[str, Any] = {"type": "cancel", "request_id": f"cancel-{self._next_id()}"}
        if heard is not None:
            message["heard"] = heard
        for exchange in self._open:
            exchange.may_be_cancelled = True
        await self._write(message)

    async def chat_prompt(self, persona: Persona) -> Ack:
        """Swap the persona; the history stays. Raises :class:`RequestRefused` (with ``retry_in`` at a limit)."""
        answer = await self._ask({"type": "chat_prompt", **persona.fields}, Ack)
        assert isinstance(answer, Ack)
        if not answer.ok:
            raise RequestRefused(answer.error_code or f"code {answer.code}", answer.message, answer.retry_in)
        return answer

    async def warm_persona(self, chat_prompt: str) -> Warmed:
        """Have the server compute this persona's prefix before it is needed."""
        answer = await self._ask({"type": "warm_persona", "chat_prompt": chat_prompt}, Warmed)
        assert isinstance(answer, Warmed)
        return answer

    async def warm_history(self, history: str) -> Warmed:
        """Have the server compute this history's prefix before it is needed."""
        answer = await self._ask({"type": "warm_history", "history_text": history}, Warmed)
        assert isinstance(answer, Warmed)
        return answer

    async def ping(self) -> float:
        """Seconds to the server and back."""
        start = time.perf_counter()
        return (await self._ask({"type": "ping"}, Pong)).at - start

    async def wait_lost(self) -> YapError | None:
        """Wait until the connection ends; what ended it."""
        await asyncio.shield(self.reader)
        return self.lost

    async def close(self) -> None:
        """Say goodbye and hang up."""
        with contextlib.suppress(YapError):
            await self._write({"type": "end"})
            await asyncio.wait({self.reader}, timeout=1.0)
        await self.line.close()
        await self.reader

    # -- beneath -----------------------------------------------------------------------------------------------------

    async def submit(self, exchange: Exchange, message: dict[str, Any], turn: Turn | None = None) -> None:
        """Send a message whose answers go to ``exchange``."""
        self.current = turn or self.current
        if message["type"] in ("start", "followup"):
            for other in self._open:
                other.may_be_cancelled = True
        self._open.append(exchange)
        await self._write(message)

    def _next_id(self) -> str:
        return f"r{next(self._ids)}"

    async def _ask(self, message: dict[str, Any], answer: type[Event]) -> Event:
        """Send a message that has one answer. Raises :class:`RequestRefused` where it is an error."""
        message["request_id"] = self._next_id()
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
        self.lost = ConnectionLost(str(self.server), code, reason, error.code if error else None)
        for exchange in self._open:
            exchange.queue.put_nowait(self.lost)

    def _deliver(self, event: Event) -> None:
        exchange = self._owner(event)
        if isinstance(event, Error):
            self.last_error = event
        if exchange is not None:
            exchange.put(event)
            if exchange.ended:
                self._open.remove(exchange)

    def _owner(self, event: Event) -> Exchange | None:
        if event.request_id is not None:
            return next((exchange for exchange in self._open if exchange.request_id == event.request_id), None)
        # A cancel with nothing running is answered too: that `done` is not the next turn's.
        stray = isinstance(event, Done) and event.cancelled
        return next((each for each in self._open if each.takes(event) and (each.may_be_cancelled or not stray)), None)

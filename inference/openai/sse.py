"""One HTTP exchange over ASGI: a bounded body, one JSON answer or an event stream, and the client's departure."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from inference.bounded_send import send_in_time
from inference.openai.errors import OpenAIError
from inference.task_ends import cancel_and_wait

MAX_BODY_BYTES = 1024 * 1024
KEEP_ALIVE_S = 2.5
"""Longest silence of a stream: clients give up after 5 to 10 seconds without a byte."""
KEEP_ALIVE = ": keep-alive\n\n"
HEAD_WITHIN_S = 0.1
"""The head of a stream leaves with the first event, in one write, or alone after this time (seconds)."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Coroutine[Any, Any, None]]
Headers = Iterable[tuple[bytes, bytes]]


_SEND_ERRORS = (TimeoutError, OSError, RuntimeError)


class ClientGone(Exception):
    """The client has closed the connection, or does not read."""


class Exchange:
    """One request and its response.

    Args:
        scope: the ASGI scope.
        receive: as the server gave it.
        send: as the server gave it. Sends that block are bounded in time.
        headers: further headers of the answer, whichever it is.
    """

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send, headers: Headers = ()) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"].rstrip("/")
        self.request_id = uuid.uuid4().hex
        self._receive = receive
        self._send = send
        self._headers = headers
        self._loop = asyncio.get_running_loop()
        self._working: asyncio.Task[Any] | None = None
        self._left = False  # the client is gone or does not read: nothing more is sent, and the work is cancelled
        self.started = False
        self._last_write = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None

    # -- the request -------------------------------------------------------------------------------

    async def body(self) -> bytes:
        """Return the request's body.

        Raises:
            OpenAIError: the body is larger than :data:`MAX_BODY_BYTES`.
            ClientGone: the client left before its end.
        """
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise OpenAIError(413, "request_too_large", f"the body may have at most {MAX_BODY_BYTES} bytes")
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)

    async def unless_gone(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work``; cancel it the moment the client closes the connection. The body has been read.

        Raises:
            ClientGone: the client left before the end.
        """
        working = self._working = asyncio.current_task()
        assert working is not None
        watching = self._loop.create_task(self._watch())
        try:
            await work
        except asyncio.CancelledError:
            if not self._left or working.uncancel():  # the server has cancelled this task
                raise
        finally:
            self._working = None
            self._stop_comments()
            await cancel_and_wait(watching)
        if self._left:
            raise ClientGone

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        """Send nothing more and cancel the work, once."""
        if not self._left:
            self._left = True
            if self._working is not None:
                self._working.cancel()

    # -- one answer --------------------------------------------------------------------------------

    async def answer(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Send a whole JSON response. A ``HEAD`` request gets the head alone.

        Raises:
            ClientGone: the client does not read.
        """
        length = str(len(body)).encode()
        await self._start(status, b"application/json", [(b"content-length", length), *headers])
        await self._write(b"" if self.method == "HEAD" else body, more=False)

    async def refuse(self, error: OpenAIError) -> None:
        """Send an error: as a response, or as the last event of a stream that has begun."""
        if self.started:
            await self._write(b"data: " + error.body() + b"\n\n", more=False)
            return
        await self.answer(error.status, error.body(), error.headers())

    # -- a stream ----------------------------------------------------------------------------------

    def begin_stream(self) -> None:
        """Let the head of an event stream leave within :data:`HEAD_WITHIN_S`; comments fill a silence from then on."""
        self._last_write = self._loop.time() - KEEP_ALIVE_S + HEAD_WITHIN_S
        self._timer = self._loop.call_later(HEAD_WITHIN_S, self._fill_silence)

    async def send_event(self, text: str) -> None:
        """Send encoded events, the first ones behind the head. Where the client does not read, cancel the work."""
        if self._left:
            return
        self._last_write = self._loop.time()
        try:
            if not self.started:
                await self._open_stream()
            await send_in_time(self._send({"type": "http.response.body", "body": text.encode(), "more_body": True}))
        except (ClientGone, *_SEND_ERRORS):
            self._leave()

    async def close_stream(self, last: str = "") -> None:
        """End the stream.

        Args:
            last: encoded events that are sent with the end, in one write.
        """
        if not self.started:
            await self._open_stream()
        self._stop_comments()
        await self._write(last.encode(), more=False)

    async def _open_stream(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(KEEP_ALIVE_S, self._fill_silence)
        await self._start(200, b"text/event-stream; charset=utf-8", [(b"x-accel-buffering", b"no")])

    def _fill_silence(self) -> None:
        now = self._loop.time()
        silent = now - self._last_write
        if silent >= KEEP_ALIVE_S:
            if self._comment is None or self._comment.done():
                self._comment = self._loop.create_task(self._send_comment())
            self._last_write, silent = now, 0.0
        self._timer = self._loop.call_later(KEEP_ALIVE_S - silent, self._fill_silence)

    async def _send_comment(self) -> None:
        await self.send_event(KEEP_ALIVE if self.started else "")  # Daphne sends the head with the first body message

    def _stop_comments(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._comment is not None:  # one that has not begun would stand behind the end
            self._comment.cancel()

    async def _start(self, status: int, content_type: bytes, headers: Headers) -> None:
        self.started = True
        common = [
            (b"content-type", content_type),
            (b"cache-control", b"no-cache"),
            (b"x-request-id", self.request_id.encode()),
            *self._headers,
            *headers,
        ]
        await self._in_time({"type": "http.response.start", "status": status, "headers": common})

    async def _write(self, body: bytes, *, more: bool) -> None:
        await self._in_time({"type": "http.response.body", "body": body, "more_body": more})

    async def _in_time(self, message: dict[str, Any]) -> None:
        try:
            await send_in_time(self._send(message))
        except _SEND_ERRORS:
            raise ClientGone from None

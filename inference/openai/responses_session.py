"""One Responses connection without its socket: client events in order, one response at a time.

    response.create   queued behind the responses before it; answered by that response's events, or by one ``error``
    response.cancel   stops the running response, which ends ``incomplete``; one that comes too late is ignored
    anything else     answered by ``error``

The connection remembers its last responses itself, also those with ``store: false``, so that a client can continue
them on this connection. Stored responses are shared by all connections of a key.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from accounts.callers import Caller
from accounts.limits import RollingWindow
from inference.accounting import account_refusal
from inference.failures import client_error
from inference.openai.context import OpenAIContext
from inference.openai.errors import RATE_LIMIT, OpenAIError, from_protocol_error, invalid
from inference.openai.messages import require_object
from inference.openai.response_lane import MAX_IN_FLIGHT, ResponseLane
from inference.openai.responses_frames import SOCKET_EVENTS, error_event
from inference.openai.responses_requests import decode_responses
from inference.openai.responses_service import ActiveResponse
from inference.openai.responses_store import MAX_CONVERSATION_CHARS, ResponseStore, owner_of
from inference.protocol.close_codes import CLOSE_NORMAL, CLOSE_POLICY, CLOSE_RESTART
from inference.protocol.decoder import MAX_MESSAGE_BYTES
from inference.protocol.errors import ProtocolError
from inference.protocol.json_text import parse_json
from inference.session_limits import REFUSALS
from inference.turn_result import StopReason
from personas.snapshot import PersonaSnapshot

logger = logging.getLogger("yap.responses")

MAX_AGE_S = 3600.0
"""A connection takes requests for this long (seconds); OpenAI's limit."""
REMEMBERED_RESPONSES = 8
REMEMBERED_CHARS = MAX_CONVERSATION_CHARS  # of a connection; a key may have hundreds
_CHARS_PER_UNIT = 64 * 1024  # of a refused event: its cost grows with its length

Send = Callable[[str], Awaitable[None]]
Close = Callable[[int], Awaitable[None]]


class ResponsesSession:
    """One connection. All calls belong to the serving loop, :meth:`receive` one at a time.

    Args:
        context: the shared parts of the surface.
        caller: the authenticated key; replaced where the key's rights or limits change.
        send: sends events, each line as one message.
        close: closes the connection with a code.
        model: the model of requests that name none; None where the connection's address named none.
    """

    snapshot: PersonaSnapshot | None = None  # the running response holds the persona
    cache_salt: str | None = None
    within_connection = False
    running = False  # a running response is in the registry itself

    def __init__(
        self, context: OpenAIContext, caller: Caller, send: Send, close: Close, model: str | None = None
    ) -> None:
        self.caller = caller
        self.connection = uuid.uuid4().hex[:12]
        self.responses = 0
        self._context = context
        self._send = send
        self._close = close
        self._model = model
        self._lane: ResponseLane[Mapping[str, Any] | str] = ResponseLane(context.waiting, owner_of(caller))
        self._own = ResponseStore(REMEMBERED_RESPONSES, REMEMBERED_CHARS)
        self._refusals = RollingWindow(REFUSALS)
        self._active: ActiveResponse | None = None
        self._worker: asyncio.Task[None] | None = None
        self._closing = False
        self._expires: asyncio.TimerHandle | None = None
        self._expired = False
        self._ending: asyncio.Task[None] | None = None  # holds a reference to the running end

    # -- called by the socket and the registry --------------------------------------------------------

    def open(self) -> None:
        """Start the clock of the connection's age."""
        self._expires = asyncio.get_running_loop().call_later(MAX_AGE_S, self._expire)

    async def receive(self, text: str | None) -> None:
        """Handle one frame. Bad input is answered and changes nothing.

        Args:
            text: the frame's text; None for a binary frame.
        """
        if self._closing:
            return
        stream_id = None
        try:
            event = _parse(text)
            stream_id = event.get("stream_id")
            match event.get("type"):
                case "response.create":
                    self._create(event, text or "")
                case "response.cancel":
                    await self._cancel(event)
                case kind:
                    raise _unknown_event(kind)
        except OpenAIError as error:
            await self._refuse(error, stream_id, len(text or ""))

    def apply_caller(self, caller: Caller) -> None:
        """Apply changed rights and limits of the key, from the next response on."""
        self.caller = caller

    async def revoke(self) -> None:
        """Tell the client that the key is revoked or expired, and close."""
        if self._closing:
            return
        self._closing = True
        await self._stop(StopReason.REVOKED)
        error = OpenAIError(401, "invalid_api_key", "this API key was revoked or has expired")
        await self._send(error_event(error))
        await self._close(CLOSE_POLICY)

    async def drain(self, timeout_s: float) -> None:
        """Let the running response end, cancel it after ``timeout_s`` seconds, then close."""
        if self._active is not None and self._worker is not None:
            await asyncio.wait({self._worker}, timeout=timeout_s)
        if self._closing:
            return
        self._closing = True
        await self._stop(StopReason.DRAIN)
        await self._close(CLOSE_RESTART)

    async def aclose(self) -> None:
        """Abort everything that runs: the connection is gone. May be called again."""
        self._closing = True
        if self._expires is not None:
            self._expires.cancel()
        if self._worker is not None and not self._worker.done():
            self._worker.cancel()
            await asyncio.wait({self._worker})
        self._lane.clear()

    # -- client events ---------------------------------------------------------------------------------

    def _create(self, event: Mapping[str, Any], text: str) -> None:
        if self._expired:
            raise _connection_limit()
        # What has to wait, waits as text: parsed, a megabyte may take twenty.
        if not self._lane.push(text if len(self._lane) else event, len(text)):
            message = f"at most {MAX_IN_FLIGHT} responses of one connection may run and wait"
            raise OpenAIError(429, "rate_limit_exceeded", message, kind=RATE_LIMIT, retry_after_s=1)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="responses")

    async def _cancel(self, event: Mapping[str, Any]) -> None:
        name = event.get("response_id")
        if self._lane.cancel(name if isinstance(name, str) else None) and self._active is not None:
            await self._active.stop(StopReason.CANCEL)
        elif self._refusals.take(time.monotonic()) > 0:  # it came too late, which is no error
            await self._close_abusive()

    # -- responses -------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Run the queued requests, one after another."""
        while not self._closing and (event := self._lane.take()) is not None:
            try:
                await self._respond(event)
            finally:
                self._lane.finished()
                self._active = None
        if self._expired and not self._closing:
            await self._end_expired()

    async def _respond(self, waited: Mapping[str, Any] | str) -> None:
        event = _parse(waited) if isinstance(waited, str) else waited
        stream_id = event.get("stream_id")
        try:
            if self._expired:
                raise _connection_limit()
            request = decode_responses(event)
            self.responses += 1
            active = self._active = ActiveResponse(
                self._context, request, self.caller, SOCKET_EVENTS, self._send, model=self._model, own=self._own
            )
            if not self._lane.started(active.response_id):
                await active.stop(StopReason.CANCEL)
            await active.run()
        except OpenAIError as error:
            await self._refuse(error, stream_id)
        except ProtocolError as error:
            await self._refuse(from_protocol_error(error), stream_id)
        except Exception as error:
            await self._refuse(from_protocol_error(client_error(logger, self.name, error)), stream_id)

    async def _stop(self, reason: StopReason) -> None:
        if self._active is not None:
            await self._active.stop(reason)

    # -- sending and closing ---------------------------------------------------------------------------

    async def _refuse(self, error: OpenAIError, stream_id: object, characters: int = 0) -> None:
        account_refusal(self._context.serving, self.caller, error.code, "")
        await self._send(error_event(error, stream_id if isinstance(stream_id, str) else None))
        now = time.monotonic()
        if any(self._refusals.take(now) > 0 for _ in range(1 + characters // _CHARS_PER_UNIT)):
            await self._close_abusive()

    async def _close_abusive(self) -> None:
        if self._closing:
            return
        logger.info("%s sends too many messages that are refused: closed", self.name)
        self._closing = True
        await self._stop(StopReason.ABUSE)
        await self._close(CLOSE_POLICY)

    def _expire(self) -> None:
        self._expired = True
        if self._worker is None or self._worker.done():
            self._ending = asyncio.ensure_future(self._end_expired())

    async def _end_expired(self) -> None:
        self._closing = True
        await self._send(error_event(_connection_limit()))
        await self._close(CLOSE_NORMAL)

    @property
    def name(self) -> str:
        """The connection as log lines name it."""
        return f"key={self.caller.prefix} conn={self.connection} session=responses"


def _parse(text: str | None) -> Mapping[str, Any]:
    """Return the event of a frame.

    Raises:
        OpenAIError: the frame is not one JSON object in text, or too large.
    """
    if text is None:
        raise OpenAIError(400, "invalid_json", "an event is a text frame")
    if len(text) > MAX_MESSAGE_BYTES:
        raise OpenAIError(413, "request_too_large", f"an event may have at most {MAX_MESSAGE_BYTES} bytes")
    try:
        return require_object(parse_json(text))
    except ProtocolError as error:
        raise from_protocol_error(error) from None


def _unknown_event(kind: object) -> OpenAIError:
    known = "response.create and response.cancel"
    named = f"{kind[:64]!r}" if isinstance(kind, str) else "without a type"
    return invalid(f"the event {named} is not known; known are {known}", "type")


def _connection_limit() -> OpenAIError:
    message = f"a connection takes requests for {MAX_AGE_S / 60:.0f} minutes: open another one"
    return OpenAIError(400, "websocket_connection_limit_reached", message)

"""The Responses WebSocket (ASGI): ``/v1/responses``, and ``/v1?model=NAME``, the address that LiveKit makes.

A refused handshake is answered with an HTTP status, as OpenAI does: 401 for the key, 429 and 503 with ``Retry-After``.
Clients take 401 as final and try again after the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import parse_qs

from accounts.addresses import client_address_of
from accounts.callers import Caller
from accounts.credentials import credentials_from_scope
from inference.admission import end_count
from inference.bounded_send import send_in_time
from inference.failures import client_error
from inference.openai.context import OpenAIContext
from inference.openai.errors import RATE_LIMIT, OpenAIError, from_protocol_error
from inference.openai.responses_frames import SOCKET_EVENTS
from inference.openai.responses_session import ResponsesSession
from inference.openai.responses_store import owner_of
from inference.protocol.errors import ProtocolError

logger = logging.getLogger("yap.connection")

PATHS = frozenset({"/v1/responses", "/v1/responses/", "/v1", "/v1/"})
MAX_SOCKETS_PER_KEY = 256
"""Open connections of one key. An idle one costs no connection slot: voice clients keep a pool of them."""
_REFUSED = "websocket.http.response"
BATCHES = "yap.websocket.batches"
"""An extension in the scope of a server that takes several messages at once: ``texts`` in ``websocket.send``."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Coroutine[Any, Any, None]]


class ResponsesSocket:
    """The ASGI application of all Responses connections.

    Args:
        context: the shared parts of the surface.
    """

    def __init__(self, context: OpenAIContext) -> None:
        self._context = context
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if (await receive())["type"] != "websocket.connect":
            return
        credentials = credentials_from_scope(scope)
        address = client_address_of(scope, self._context.admission.trust_proxy)
        try:
            caller = await self._admit(credentials.key, address)
        except OpenAIError as refusal:
            logger.info("refused %s from=%s", refusal.code, address or "?")
            await _refuse(send, refusal, by_status=_REFUSED in (scope.get("extensions") or {}))
            end_count(scope)
            return
        end_count(scope)
        owner = owner_of(caller)
        self._open[owner] += 1
        try:
            await send({"type": "websocket.accept", "subprotocol": credentials.subprotocol})
            connection = _Connection(receive, send, batches=BATCHES in (scope.get("extensions") or {}))
            await connection.serve(self._context, caller, _model(scope))
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]

    async def _admit(self, key: str | None, address: str) -> Caller:
        try:
            caller = await self._context.authenticate(key, address)
        except ProtocolError as refusal:
            self._context.serving.metrics.refused(refusal.code)
            raise from_protocol_error(refusal) from None
        except Exception as error:
            raise from_protocol_error(client_error(logger, "connection not admitted:", error)) from None
        if self._open[owner_of(caller)] >= MAX_SOCKETS_PER_KEY:
            message = f"this key has {MAX_SOCKETS_PER_KEY} open connections: close some"
            raise OpenAIError(429, "rate_limit_exceeded", message, kind=RATE_LIMIT, retry_after_s=5)
        return caller


class _Connection:
    """One accepted connection: its frames, and its end.

    Args:
        receive: as the server gave it.
        send: as the server gave it.
        batches: whether the server has the extension :data:`BATCHES`.
    """

    def __init__(self, receive: Receive, send: Send, *, batches: bool) -> None:
        self._receive = receive
        self._send = send
        self._batches = batches
        self._gone = False
        self._task = asyncio.current_task()

    async def serve(self, context: OpenAIContext, caller: Caller, model: str | None) -> None:
        """Pass frames to a session until the client leaves; then release everything."""
        session = ResponsesSession(context, caller, self.send_events, self.close, model)
        registry, opened = context.registry, time.monotonic()
        registry.add(session)
        logger.info("open key=%s conn=%s active=%d responses", caller.prefix, session.connection, registry.connections)
        session.open()
        try:
            while (message := await self._receive())["type"] != "websocket.disconnect":
                await session.receive(message.get("text"))
        except asyncio.CancelledError:
            if not self._gone:
                raise
        finally:
            registry.remove(session)
            await session.aclose()
            logger.info(
                "close key=%s conn=%s after_s=%.1f responses=%d",
                session.caller.prefix,
                session.connection,
                time.monotonic() - opened,
                session.responses,
            )

    async def send_events(self, events: str) -> None:
        """Send events, each line as one message. The connection ends where the client takes no frames, or is gone."""
        if self._gone:
            return
        texts = events.split(SOCKET_EVENTS.separator)[:-1]
        try:
            if self._batches and len(texts) > 1:
                await send_in_time(self._send({"type": "websocket.send", "texts": texts}))
            else:
                for text in texts:
                    await send_in_time(self._send({"type": "websocket.send", "text": text}))
        except (TimeoutError, OSError, RuntimeError) as error:
            logger.info("client takes no frames: %s", type(error).__name__)
            self._gone = True
            if self._task is not None:
                self._task.cancel()

    async def close(self, code: int) -> None:
        """Close the connection. Frames that arrive afterwards are ignored."""
        try:
            await send_in_time(self._send({"type": "websocket.close", "code": code}))
        except (TimeoutError, OSError, RuntimeError):
            logger.debug("the connection was already gone")


def _model(scope: dict[str, Any]) -> str | None:
    """Return ``?model=`` of the address; None where there is none."""
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    names: list[str] = query.get("model", [])
    return names[-1] if names else None


async def _refuse(send: Send, refusal: OpenAIError, *, by_status: bool) -> None:
    """Refuse a handshake. A server without ASGI's extension answers 403 to a close before the accept."""
    if not by_status:
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"application/json"), *refusal.headers()]
    await send({"type": f"{_REFUSED}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{_REFUSED}.body", "body": refusal.body()})

"""The WebSocket edge: accept a connection, admit it, pass its frames to a session, release everything at the end.

Channels' own consumers call ``aclose_old_connections()`` in one thread of the process on every inbound frame, and each
polls a channel layer. A conversation uses neither, so this consumer runs a receive loop of its own. The database reads
of an admission replace stale connections themselves (:mod:`accounts.database_threads`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from channels.consumer import AsyncConsumer

from accounts.addresses import client_address_of
from accounts.connection_slots import ConnectionSlot
from accounts.credentials import credentials_from_scope
from inference.admission import Admission, check_ready, end_count
from inference.bounded_send import send_in_time
from inference.failures import client_error
from inference.protocol.close_codes import CLOSE_RESTART
from inference.protocol.errors import ErrorCode, ProtocolError
from inference.protocol.frames import error_frame
from inference.serving_context import ServingContext
from inference.session import Session
from inference.session_registry import SessionRegistry

logger = logging.getLogger("yap.connection")

_FRAME_SAMPLE = 16  # one of this many sends is timed


class ChatConsumer(AsyncConsumer):
    """One connection to ``/ws``. Made by ``as_asgi(serving=…, admission=…, registry=…)``."""

    def __init__(self, serving: ServingContext, admission: Admission, registry: SessionRegistry) -> None:
        self._serving = serving
        self._admission = admission
        self._registry = registry
        self._frames = 0
        self._gone = False
        self._task: asyncio.Task[None] | None = None

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Coroutine[Any, Any, None]],
    ) -> None:
        """Serve one connection (ASGI)."""
        self.scope, self.base_send = scope, send
        message = await receive()
        if message["type"] != "websocket.connect":
            return
        if self._admission.leaves_to_another_process(self._serving, scope):
            await send({"type": "websocket.close"})  # before the accept: HTTP 403
            end_count(scope)
            return
        credentials = credentials_from_scope(scope)
        await send({"type": "websocket.accept", "subprotocol": credentials.subprotocol})
        self._task = asyncio.current_task()
        slot: ConnectionSlot | None = None
        session: Session | None = None
        opened = time.monotonic()
        try:
            try:
                caller = await self._admission.authenticate(self._serving, credentials.key, self._client_address)
                end_count(scope)
                check_ready(self._serving)
                slot = await self._admission.take_slot(caller)
                check_ready(self._serving)  # waiting for the slot may have taken a while
            except ProtocolError as refusal:
                await self._refuse(refusal)
                return
            except Exception as error:
                await self._refuse(client_error(logger, "connection not admitted:", error))
                return
            session = Session(self._serving, caller, self.send_text, self.close, self._registry.resumable)
            self._registry.add(session)
            logger.info("open key=%s conn=%s active=%d", caller.prefix, session.connection, self._registry.connections)
            session.open()
            while True:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    break
                await session.receive(message.get("text"))
        except asyncio.CancelledError:
            if not self._gone:
                raise
        finally:
            # Also when the server cancels this task: first release what other connections need, then log.
            if session is not None:
                self._registry.remove(session)
            if slot is not None:
                slot.release()
            if session is not None:
                await session.aclose()
                logger.info(
                    "close key=%s conn=%s after_s=%.1f turns=%d",
                    session.caller.prefix,
                    session.connection,
                    time.monotonic() - opened,
                    session.turns,
                )

    # -- the admission ----------------------------------------------------------------------------------

    @property
    def _client_address(self) -> str:
        return client_address_of(self.scope, self._admission.trust_proxy)

    async def _refuse(self, refusal: ProtocolError) -> None:
        self._serving.metrics.refused(refusal.code)
        logger.info("refused %s from=%s", refusal.code, self._client_address or "?")
        await self.send_text(error_frame(refusal))
        codes = {
            ErrorCode.AUTHENTICATION_FAILED: self._admission.close_unauthorized,
            ErrorCode.SERVER_DRAINING: CLOSE_RESTART,
        }
        await self.close(codes.get(ErrorCode(refusal.code), self._admission.close_busy))

    # -- what the session calls --------------------------------------------------------------------

    async def send_text(self, text: str) -> None:
        """Send one frame. The session ends where the client takes no frames, or is gone."""
        if self._gone:
            return
        self._frames += 1
        timed = not self._frames % _FRAME_SAMPLE
        started = time.perf_counter() if timed else 0.0
        try:
            await send_in_time(self.base_send({"type": "websocket.send", "text": text}))
        except (TimeoutError, OSError, RuntimeError) as error:
            logger.info("client takes no frames: %s", type(error).__name__)
            self._gone = True
            if self._task is not None:
                self._task.cancel()
        if timed:
            self._serving.metrics.frame_seconds.observe(time.perf_counter() - started)

    async def close(self, code: int) -> None:
        """Close the connection. Frames that arrive afterwards are ignored."""
        try:
            await send_in_time(self.base_send({"type": "websocket.close", "code": code}))
        except (TimeoutError, OSError, RuntimeError):
            logger.debug("the connection was already gone")

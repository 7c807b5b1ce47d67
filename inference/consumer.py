"""The WebSocket edge: accept a connection, admit it, pass its frames to a session, release everything at the end.

Channels' own consumers call ``aclose_old_connections()`` in one thread of the process on every inbound frame, and each
polls a channel layer. A conversation uses neither, so this consumer runs a receive loop of its own. The database reads
of an admission replace stale connections themselves (:mod:`accounts.database_threads`).
"""

from __future__ import annotations

import asyncio
import logging
import time
import types
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from channels.consumer import AsyncConsumer

from accounts.addresses import client_address_of, network_of
from accounts.breaker import DependencyAway
from accounts.callers import Caller
from accounts.connection_slots import ConnectionSlot, ConnectionSlots
from accounts.credentials import credentials_from_scope
from accounts.key_guesses import TooManyWrongKeys
from inference.protocol.close_codes import CLOSE_RESTART
from inference.protocol.errors import ErrorCode, ProtocolError
from inference.protocol.frames import error_frame
from inference.serving_context import RETRY_IN_S, ServingContext
from inference.session import Session
from inference.session_registry import SessionRegistry

logger = logging.getLogger("yap.connection")

SEND_TIMEOUT_S = 10.0
"""Close the connection if one send blocks longer than this (seconds)."""
ADMISSION_TIMEOUT_S = 3.4
"""Refuse the connection if its key takes longer than this to check (seconds)."""
_FRAME_SAMPLE = 16  # one of this many sends is timed


@dataclass(frozen=True, slots=True)
class Admission:
    """Settings and services of the time before a connection has a session.

    Attributes:
        find_caller: ``(key, client's network)`` → the caller, or None: no such key. Raises ``DependencyAway`` where the
            database does not answer.
        slots: Connection slots.
        acquire_timeout: How long a connection waits for a slot (seconds).
        close_unauthorized: Close code of a refused key.
        close_busy: Close code of every other refusal, except while draining.
        trust_proxy: Whether a proxy in front names the client's address.
    """

    find_caller: Callable[[str, str], Awaitable[Caller | None]]
    slots: ConnectionSlots
    acquire_timeout: float
    close_unauthorized: int
    close_busy: int
    trust_proxy: bool = False


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
        credentials = credentials_from_scope(scope)
        await send({"type": "websocket.accept", "subprotocol": credentials.subprotocol})
        self._task = asyncio.current_task()
        slot: ConnectionSlot | None = None
        session: Session | None = None
        opened = time.monotonic()
        try:
            try:
                caller = await self._authenticate(credentials.key)
                await self._check_ready()
                slot = await self._take_slot(caller)
                await self._check_ready()  # waiting for the slot may have taken a while
            except ProtocolError as refusal:
                await self._refuse(refusal)
                return
            except Exception as error:
                reference = uuid.uuid4().hex[:12]
                logger.error("connection not admitted, reference %s", reference, exc_info=error)
                sorry = ProtocolError(ErrorCode.INTERNAL_ERROR, "something went wrong on our side", reference=reference)
                await self._refuse(sorry)
                return
            session = Session(self._serving, caller, self.send_text, self.close)
            self._registry.add(session)
            logger.info("open key=%s conn=%s active=%d", caller.prefix, session.connection, len(self._registry))
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

    async def _authenticate(self, key: str | None) -> Caller:
        try:
            async with asyncio.timeout(ADMISSION_TIMEOUT_S):
                caller = await self._admission.find_caller(key, network_of(self._client_address)) if key else None
                if caller is not None:
                    await self._serving.budget.open(caller)
        except TooManyWrongKeys as error:
            raise ProtocolError(ErrorCode.AUTHENTICATION_FAILED, str(error), retry_in=error.retry_in) from None
        except (DependencyAway, TimeoutError):
            raise ProtocolError(
                ErrorCode.SERVER_NOT_READY, "the key cannot be checked right now, try again", retry_in=1
            ) from None
        if caller is None:
            raise ProtocolError(
                ErrorCode.AUTHENTICATION_FAILED, "no API key, or one that is unknown, revoked or expired"
            )
        return caller

    @property
    def _client_address(self) -> str:
        return client_address_of(self.scope, self._admission.trust_proxy)

    async def _check_ready(self) -> None:
        if self._serving.draining:
            raise ProtocolError(ErrorCode.SERVER_DRAINING, "the server is stopping", retry_in=RETRY_IN_S)
        if not self._serving.ready:
            wait = self._serving.engines.retry_in
            raise ProtocolError(ErrorCode.SERVER_NOT_READY, "the engines are not ready yet", retry_in=wait)

    async def _take_slot(self, caller: Caller) -> ConnectionSlot:
        slot = await self._admission.slots.acquire(caller, self._admission.acquire_timeout)
        if slot is None:
            capacity = await self._admission.slots.snapshot(caller)
            raise ProtocolError(ErrorCode.SERVER_AT_CAPACITY, "no free slot, try again later", capacity=capacity)
        return slot

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
            await _send_with_timeout(self.base_send({"type": "websocket.send", "text": text}))
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
            await _send_with_timeout(self.base_send({"type": "websocket.close", "code": code}))
        except (TimeoutError, OSError, RuntimeError):
            logger.debug("the connection was already gone")


async def _send_with_timeout(sending: Coroutine[Any, Any, None]) -> None:
    """Await a send; raise ``TimeoutError`` after :data:`SEND_TIMEOUT_S`, where a client does not read.

    Nearly every send completes in its first step; a timer is set only for one that does not.
    """
    try:
        waiting = sending.send(None)
    except StopIteration:
        return
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await _resume(sending, waiting)


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, Any, None]:
    """Await a coroutine that has begun. ``waiting`` is what its first step yielded."""
    while True:
        try:
            try:
                value = yield waiting
            except BaseException as error:
                waiting = coroutine.throw(error)
            else:
                waiting = coroutine.send(value)
        except StopIteration:
            return

"""The edge: one WebSocket connection. Accept, admit, hand frames to the session, give everything back.

Channels' own consumers look after the database's connections on every inbound frame, by one thread for the whole
process,
and poll a channel layer each. A conversation needs neither, so this consumer runs its own loop.
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

SEND_TIMEOUT_S = 10.0  # a client that takes nothing for so long is let go
_FRAME_SAMPLE = 16  # every so manieth frame is timed


@dataclass(frozen=True, slots=True)
class Admission:
    """What a connection needs before it is a session."""

    find_caller: Callable[[str, str], Awaitable[Caller | None]]  # of a key and the client's network
    slots: ConnectionSlots
    acquire_timeout: float
    close_unauthorized: int
    close_busy: int
    trust_proxy: bool = False


class ChatConsumer(AsyncConsumer):
    """Speaks the protocol at ``/ws``. Made by ``as_asgi(serving=…, admission=…, registry=…)``."""

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
        """The ASGI application of one connection."""
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
                slot = await self._take_place(caller)
                await self._check_ready()  # it may have waited for the slot
            except ProtocolError as refusal:
                await self._refuse(refusal)
                return
            except Exception as error:  # the database or Redis is away
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
            # However it ended, cancelled by the server included: first what costs others, then the log.
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
            caller = await self._admission.find_caller(key, network_of(self._client_address)) if key else None
        except TooManyWrongKeys as error:
            raise ProtocolError(ErrorCode.AUTHENTICATION_FAILED, str(error), retry_in=error.retry_in) from None
        if caller is None:
            raise ProtocolError(
                ErrorCode.AUTHENTICATION_FAILED, "no API key, or one that is unknown, revoked or expired"
            )
        await self._serving.budget.open(caller)
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

    async def _take_place(self, caller: Caller) -> ConnectionSlot:
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
        """One frame out. A connection that takes nothing, or is gone, is left: its session ends."""
        if self._gone:
            return
        self._frames += 1
        timed = not self._frames % _FRAME_SAMPLE
        started = time.perf_counter() if timed else 0.0
        try:
            await _patiently(self.base_send({"type": "websocket.send", "text": text}))
        except (TimeoutError, OSError, RuntimeError) as error:
            logger.info("client takes no frames: %s", type(error).__name__)
            self._gone = True
            if self._task is not None:
                self._task.cancel()
        if timed:
            self._serving.metrics.frame_seconds.observe(time.perf_counter() - started)

    async def close(self, code: int) -> None:
        """Close the connection; what arrives afterwards is not looked at."""
        try:
            await _patiently(self.base_send({"type": "websocket.close", "code": code}))
        except (TimeoutError, OSError, RuntimeError):
            logger.debug("the connection was already gone")


async def _patiently(sending: Coroutine[Any, Any, None]) -> None:
    """``await sending``; raises TimeoutError where a server with back-pressure waits too long for a client that does
    not read. Nearly every frame is taken at once: the clock is set only where one is not."""
    try:
        waiting = sending.send(None)
    except StopIteration:
        return
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await _rest(sending, waiting)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, Any, None]:
    """Awaits a coroutine that has begun, and waits for what it yielded."""
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

"""Admission of a connection or request: its key, the server's readiness, a connection slot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from accounts.addresses import network_of
from accounts.breaker import DependencyAway
from accounts.callers import Caller
from accounts.connection_slots import ConnectionSlot, ConnectionSlots
from accounts.key_guesses import TooManyWrongKeys
from inference.protocol.errors import ErrorCode, ProtocolError
from inference.serving_context import RETRY_IN_S, ServingContext

ADMISSION_TIMEOUT_S = 3.4
"""Refuse the client if its key takes longer than this to check (seconds)."""
TRY_NEXT_HEADER = b"x-yap-try-next"
"""Set by a balancer that passes a handshake on to another process where this one rejects it with HTTP 403."""

COUNTED = "yap.counted"
"""In a WebSocket's scope: ends the connection's count among those of its address that have no valid key."""


def end_count(scope: Mapping[str, Any]) -> None:
    """Count a connection among those without a valid key no longer: the key is valid, or the handshake was rejected.

    Args:
        scope: The ASGI scope of the connection.
    """
    end = scope.get(COUNTED)
    if end is not None:
        end()


@dataclass(frozen=True, slots=True)
class Admission:
    """Settings and services of the time before a client has a session.

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

    async def authenticate(self, context: ServingContext, key: str | None, address: str) -> Caller:
        """Return the caller of a key and open its token budget.

        Args:
            context: The process's budgets.
            key: The key; None where the client sent none.
            address: The client's address, for the counting of wrong keys.

        Raises:
            ProtocolError: ``authentication_failed``; ``server_not_ready`` where the key cannot be checked in time.
        """
        try:
            async with asyncio.timeout(ADMISSION_TIMEOUT_S):
                caller = await self.find_caller(key, network_of(address)) if key else None
                if caller is not None:
                    await context.budget.open(caller)
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

    def leaves_to_another_process(self, context: ServingContext, scope: Mapping[str, Any]) -> bool:
        """Whether to reject a handshake with HTTP 403, so that the balancer tries the next process.

        True if no conversation can begin here now and the operator's own proxy has set :data:`TRY_NEXT_HEADER`.

        Args:
            context: The process's state.
            scope: The ASGI scope of the handshake.
        """
        if context.ready or not self.trust_proxy:
            return False
        return any(name == TRY_NEXT_HEADER and value for name, value in scope.get("headers", ()))

    async def take_slot(self, caller: Caller) -> ConnectionSlot:
        """Return a connection slot; wait at most ``acquire_timeout`` seconds for one.

        Raises:
            ProtocolError: ``server_at_capacity``, with the counts.
        """
        slot = await self.slots.acquire(caller, self.acquire_timeout)
        if slot is None:
            capacity = await self.slots.snapshot(caller)
            raise ProtocolError(ErrorCode.SERVER_AT_CAPACITY, "no free slot, try again later", capacity=capacity)
        return slot


def check_ready(context: ServingContext) -> None:
    """Check that conversations can begin.

    Raises:
        ProtocolError: ``server_draining`` or ``server_not_ready``, with ``retry_in`` seconds.
    """
    if context.draining:
        raise ProtocolError(ErrorCode.SERVER_DRAINING, "the server is stopping", retry_in=RETRY_IN_S)
    if not context.ready:
        wait = context.engines.retry_in
        raise ProtocolError(ErrorCode.SERVER_NOT_READY, "the engines are not ready yet", retry_in=wait)

"""Warm-ups of one session: prompts computed into the prefix cache in the background, charged to the key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from accounts.callers import Caller
from inference.accounting import account_warm_up
from inference.engines.base import EngineDead, EngineRole
from inference.failures import client_error
from inference.prefix_cache import prime
from inference.protocol.errors import ProtocolError
from inference.protocol.frames import error_frame
from inference.serving_context import ServingContext
from inference.turn_admission import budget_exhausted
from inference.turn_line import FrameSender

logger = logging.getLogger("yap.session")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a warm-up that succeeds.

    Args:
        frame: the frame; None sends none.
        request_id: echoed in an error frame; None where the message had none.
    """

    frame: str | None
    request_id: str | None


class WarmUps:
    """Background requests of one session. All calls belong to the serving loop.

    Args:
        context: the process's engines and accounts.
        cache_salt: the key's share of the prefix cache.
        affinity: the session's key for the replicas of an engine.
        send: sends one frame.
    """

    def __init__(self, context: ServingContext, cache_salt: str | None, affinity: str, send: FrameSender) -> None:
        self._context = context
        self._cache_salt = cache_salt
        self._affinity = affinity
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, caller: Caller, persona_slug: str, prompt_ids: Sequence[int], answer: Answer, name: str) -> None:
        """Compute a prompt of the chat engine and charge it.

        Args:
            caller: the key that pays; charged when the request is submitted.
            persona_slug: the persona in the usage record.
            prompt_ids: the prompt. An empty prompt (a template without an opening) is done at once and free.
            answer: the client's answer.
            name: the session as log lines name it.
        """
        self._run(self._warm(caller, persona_slug, prompt_ids, answer, name))

    def refresh(self, prefixes: Sequence[tuple[EngineRole, Sequence[int]]], session_name: str) -> None:
        """Compute prefixes that a history trim has changed, before the user's next message. Free of charge: the next
        turn pays for the same tokens."""
        self._run(self._refresh(prefixes, session_name))

    def redirect(self, send: FrameSender) -> None:
        """Send all further answers to another connection."""
        self._send = send

    async def aclose(self, timeout_s: float) -> None:
        """Cancel all warm-ups and wait at most ``timeout_s`` seconds for their ends."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _warm(
        self, caller: Caller, persona_slug: str, prompt_ids: Sequence[int], answer: Answer, name: str
    ) -> None:
        frame, reservation = answer.frame, None
        try:
            if prompt_ids:
                chat = self._context.engines.engine(EngineRole.CHAT)
                reservation = await self._context.budget.reserve(caller, len(prompt_ids))
                if reservation is None:
                    raise budget_exhausted(self._context)
                account_warm_up(self._context, caller, persona_slug, len(prompt_ids), reservation)
                await prime(chat, prompt_ids, self._cache_salt, self._affinity)
        except ProtocolError as refused:
            refused.request_id = answer.request_id
            frame = None if frame is None else error_frame(refused)  # a warm-up without an answer was not asked for
        except Exception as failed:
            frame = error_frame(client_error(logger, name, failed, answer.request_id))
        finally:
            if reservation is not None:
                reservation.settle(0)  # does nothing where the request was accounted
        if frame is not None:
            await self._send(frame)

    async def _refresh(self, prefixes: Sequence[tuple[EngineRole, Sequence[int]]], session_name: str) -> None:
        try:
            for role, ids in prefixes:
                if ids and self._context.engines.deployed(role):
                    await prime(self._context.engines.engine(role), ids, self._cache_salt, self._affinity)
        except EngineDead as dead:
            logger.info("%s prefix not refreshed: %s", session_name, dead)
        except Exception:
            logger.exception("%s prefix not refreshed", session_name)

"""Warm-ups of one session: prompts computed into the prefix cache in the background, charged to the key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from accounts.callers import Caller
from inference.accounting import account_warm_up
from inference.engines.base import EngineDead, EngineRole
from inference.prefix_cache import prime
from inference.serving_context import ServingContext

logger = logging.getLogger("yap.session")


class WarmUps:
    """Background requests of one session. All calls belong to the serving loop.

    Args:
        context: the process's engines and accounts.
        cache_salt: the key's share of the prefix cache.
    """

    def __init__(self, context: ServingContext, cache_salt: str | None) -> None:
        self._context = context
        self._cache_salt = cache_salt
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self,
        caller: Caller,
        persona_slug: str,
        prompt_ids: Sequence[int],
        on_done: Callable[[Exception | None], Awaitable[None]],
    ) -> None:
        """Compute a prompt of the chat engine and charge it.

        Args:
            caller: the key that pays; charged when the request is submitted.
            persona_slug: the persona in the usage record.
            prompt_ids: the prompt. An empty prompt (a template without an opening) is done at once and free.
            on_done: called with None, or with the exception that ended the request.
        """
        self._run(self._warm(caller, persona_slug, prompt_ids, on_done))

    def refresh(self, prefixes: Sequence[tuple[EngineRole, Sequence[int]]], session_name: str) -> None:
        """Compute prefixes that a history trim has changed, before the user's next message. Free of charge: the next
        turn pays for the same tokens."""
        self._run(self._refresh(prefixes, session_name))

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
        self,
        caller: Caller,
        persona_slug: str,
        prompt_ids: Sequence[int],
        on_done: Callable[[Exception | None], Awaitable[None]],
    ) -> None:
        error: Exception | None = None
        try:
            if prompt_ids:
                chat = self._context.engines.engine(EngineRole.CHAT)
                account_warm_up(self._context, caller, persona_slug, len(prompt_ids))
                await prime(chat, prompt_ids, self._cache_salt)
        except Exception as failed:
            error = failed
        await on_done(error)

    async def _refresh(self, prefixes: Sequence[tuple[EngineRole, Sequence[int]]], session_name: str) -> None:
        try:
            for role, ids in prefixes:
                if ids and self._context.engines.deployed(role):
                    await prime(self._context.engines.engine(role), ids, self._cache_salt)
        except EngineDead as dead:
            logger.info("%s prefix not refreshed: %s", session_name, dead)
        except Exception:
            logger.exception("%s prefix not refreshed", session_name)

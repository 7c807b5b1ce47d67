"""The callers that this server knows: ``TEXT_API_KEY``, the keys of the database, and "Try it" tickets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import suppress

from accounts.callers import Caller, Limits
from accounts.key_guesses import is_guess, wrong_keys
from accounts.keys import same
from accounts.selectors import callers_now, env_caller, find_caller
from yapserver import trial_tickets

GUESS_WAIT_S = 0.5
RIGHT_KEY_WAIT_S = 0.05
"""For `TEXT_API_KEY` itself, which is admitted within 0.3 s also where Redis has stopped answering a moment ago."""


class CallerSource:
    """Finds callers for :class:`accounts.caller_lookup.CallerLookup` and for the config watcher.

    Args:
        defaults: The server's limits, for keys without limits of their own.
        text_api_key: The plain text of ``TEXT_API_KEY``; None: there is none.
    """

    def __init__(self, defaults: Limits, text_api_key: str | None) -> None:
        self._defaults = defaults
        self._text_api_key = text_api_key

    @property
    def resident(self) -> Caller | None:
        """The caller of ``TEXT_API_KEY``; None: there is no such key."""
        return None if self._text_api_key is None else env_caller(self._defaults)

    async def in_memory(self, key: str, network: str) -> Caller | None:
        """Return the caller of ``TEXT_API_KEY``; None for any other key. Needs no database.

        A guess of that key is counted. Where all processes count together, Redis is asked in a thread, for at most
        :data:`GUESS_WAIT_S`, and :data:`RIGHT_KEY_WAIT_S` for the key itself.

        Raises:
            TooManyWrongKeys: The network has used up its attempts.
        """
        right = self._text_api_key is not None and same(key, self._text_api_key)
        if is_guess(key):
            await self._guessed(network, right=right)
        return self.resident if right else None

    async def _guessed(self, network: str, *, right: bool) -> None:
        wrong_keys.guessed_here(network, right=right)
        if wrong_keys.shared is not None:
            with suppress(TimeoutError):  # no answer in time: this process has counted the guess
                async with asyncio.timeout(RIGHT_KEY_WAIT_S if right else GUESS_WAIT_S):
                    await asyncio.to_thread(wrong_keys.shared.guessed, network, right=right)

    def in_database(self, key: str) -> Caller | None:
        """Return the caller of any other key or ticket; None: unknown, expired or revoked. For a thread."""
        if trial_tickets.is_ticket(key):
            return trial_tickets.find_caller(key, self._defaults)
        return find_caller(key, self._defaults, None)

    def current(self, callers: Collection[Caller]) -> dict[Caller, Caller | None]:
        """Return each caller as it is now; None: its connections must be closed. For a thread."""
        fresh = callers_now([caller for caller in callers if caller.key_id is not None], self._defaults)
        for caller in callers:
            if caller.operator_id is not None:  # a ticket ends with its time and with its operator's rights
                in_time = caller.expires_at is not None and caller.expires_at > time.time()
                fresh[caller] = caller if in_time and trial_tickets.operator_may_try(caller) else None
            elif caller.key_id is None:  # TEXT_API_KEY changes with a restart only
                fresh[caller] = caller
        return fresh

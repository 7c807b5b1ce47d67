"""The callers that this server knows: ``TEXT_API_KEY``, the keys of the database, and "Try it" tickets."""

from __future__ import annotations

import time
from collections.abc import Collection

from accounts.authentication import authenticate
from accounts.callers import Caller, Limits
from accounts.key_guesses import wrong_keys
from accounts.keys import prefix_of, same
from accounts.selectors import callers_now, env_caller
from yapserver import trial_tickets


class CallerSource:
    """Finds callers for :class:`accounts.caller_lookup.CallerLookup` and for the config watcher.

    Args:
        defaults: The server's limits, for keys without limits of their own.
        text_api_key: The plain text of ``TEXT_API_KEY``; None: there is none.
    """

    def __init__(self, defaults: Limits, text_api_key: str | None) -> None:
        self._defaults = defaults
        self._text_api_key = text_api_key

    def in_memory(self, key: str, network: str) -> Caller | None:
        """Return the caller of ``TEXT_API_KEY``; None for any other key. Needs no thread and no database.

        Raises:
            TooManyWrongKeys: The network has used up its attempts.
        """
        if self._text_api_key is None or prefix_of(key) is not None:
            return None
        wrong_keys.check(network)
        return env_caller(self._defaults) if same(key, self._text_api_key) else None

    def in_database(self, key: str, network: str) -> Caller | None:
        """Return the caller of any other key or ticket; None: unknown, expired or revoked. For a thread.

        Raises:
            TooManyWrongKeys: The network has used up its attempts.
        """
        if trial_tickets.is_ticket(key):
            return trial_tickets.find_caller(key, self._defaults)
        return authenticate(key, network, self._defaults, None)

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

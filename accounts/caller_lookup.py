"""Finds the caller behind a key for new connections, also while the database does not answer."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from accounts.breaker import DependencyAway
from accounts.callers import Caller
from accounts.database_threads import DatabaseThreads
from accounts.keys import hash_key

KNOWN_WAIT_S = 0.4
"""How long a key that was admitted before waits for the database."""
UNKNOWN_WAIT_S = 3.0
"""The same for a key that this process has not met."""
MAX_KNOWN = 10_000
CHECK_EVERY_S = 30.0
"""Remembered keys are compared with the database this often, beside the announcements of changes."""


@dataclass(slots=True)
class _Known:
    caller: Caller
    checked: float


class CallerLookup:
    """Keys and their callers. Every key that was found is remembered and serves while the database does not answer.

    Args:
        threads: Where the database is asked.
        in_memory: ``(key, network)`` → the caller of a key that needs no database, else None.
        in_database: ``key`` → the caller of any other key, else None. Runs in a thread.
        clock: Unix seconds.
    """

    def __init__(
        self,
        threads: DatabaseThreads,
        in_memory: Callable[[str, str], Awaitable[Caller | None]],
        in_database: Callable[[str], Caller | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._threads = threads
        self._in_memory = in_memory
        self._in_database = in_database
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def find(self, key: str, network: str = "") -> Caller | None:
        """Return the caller of a key.

        Args:
            key: As the client sent it.
            network: Where the client is, for the counting of wrong keys.

        Returns:
            The caller, or None: the key is unknown, expired or revoked.

        Raises:
            DependencyAway: The database does not answer, and this process has not met the key.
        """
        caller = await self._in_memory(key, network)
        if caller is not None:
            return caller
        fingerprint = hash_key(key)
        known = self._known.get(fingerprint)
        try:
            caller = await self._threads.read(
                lambda: self._in_database(key), wait_s=KNOWN_WAIT_S if known else UNKNOWN_WAIT_S
            )
        except DependencyAway:
            if known is None:
                raise
            ends = known.caller.expires_at
            return known.caller if ends is None or ends > self._clock() else None
        if caller is None:
            self._known.pop(fingerprint, None)
        else:
            self._remember(fingerprint, caller)
        return caller

    def unchecked(self) -> list[Caller]:
        """Remembered callers that have not been compared with the database for :data:`CHECK_EVERY_S`."""
        before = self._clock() - CHECK_EVERY_S
        return [known.caller for known in self._known.values() if known.checked < before]

    def update(self, fresh: Mapping[Caller, Caller | None]) -> None:
        """Replace remembered callers by what the database says of them now; None: forget the key."""
        now = self._clock()
        for fingerprint, known in tuple(self._known.items()):
            if known.caller in fresh:
                caller = fresh[known.caller]
                if caller is None:
                    del self._known[fingerprint]
                else:
                    self._known[fingerprint] = _Known(caller, now)

    def recheck(self) -> None:
        """Compare all remembered callers with the database at the next opportunity: a change was announced."""
        for known in self._known.values():
            known.checked = 0.0

    def _remember(self, fingerprint: str, caller: Caller) -> None:
        self._known[fingerprint] = _Known(caller, self._clock())
        self._known.move_to_end(fingerprint)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

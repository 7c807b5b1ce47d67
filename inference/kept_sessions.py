"""The records of sessions whose connections have ended, kept until the client comes back."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from accounts.callers import Caller
from inference.session_copies import SessionCopies
from inference.session_state import SessionState
from personas.snapshot import PersonaSnapshot

MAX_TOKENS = 2_000_000


@dataclass(frozen=True, slots=True)
class _Kept:
    caller: Caller
    state: SessionState
    size: int
    until: float


class KeptSessions:
    """Keeps the state of ended connections under (key, session id). All calls belong to the serving loop.

    Args:
        keep_s: a record is dropped after this many seconds; 0 keeps none.
        max_tokens: the size of all records together (:attr:`SessionState.size`). The key that holds most loses its
            oldest records first, so that no key displaces the records of others.
        clock: returns the time in seconds.
        copies: copies of the records outside this process; None where there are none.
    """

    def __init__(
        self,
        keep_s: float = 0.0,
        max_tokens: int = MAX_TOKENS,
        clock: Callable[[], float] = time.monotonic,
        copies: SessionCopies | None = None,
    ) -> None:
        self._keep_s = keep_s
        self._max_tokens = max_tokens
        self._clock = clock
        self._copies = copies if keep_s > 0 else None
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()  # in the order of their expiry
        self._names: dict[str, OrderedDict[str, None]] = {}  # session ids of each key, in the same order
        self._tokens_of: Counter[str] = Counter()  # by key
        self._tokens = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def tokens(self) -> int:
        """The size of all records together."""
        return self._tokens

    def put(self, caller: Caller, state: SessionState) -> None:
        """Keep the state of a connection that has ended. A state without a session id is not kept."""
        if state.session_id is None or state.conversation is None or self._keep_s <= 0:
            return
        self.copy(caller, state)
        self._hold(caller, state.session_id, state)

    def copy(self, caller: Caller, state: SessionState) -> None:
        """Copy a session for other processes, where there are any."""
        if self._copies is not None:
            self._copies.put(caller, state)

    async def fetch(self, caller: Caller, session_id: str, *, copies: bool = True) -> SessionState | None:
        """Return the record of this key's session as :meth:`find` does, or that of another process if newer.

        Args:
            caller: the key.
            session_id: the client's id.
            copies: whether to ask for copies of other processes.
        """
        state = self.find(caller, session_id)
        if self._copies is None or not copies:
            return state
        copy = await self._copies.get(caller, session_id, -1 if state is None else state.version)
        state = self.find(caller, session_id)
        if copy is None or (state is not None and state.version >= copy.version):
            return state
        self._hold(caller, session_id, copy)
        return self.find(caller, session_id)

    def forget(self, caller: Caller, session_id: str) -> None:
        """Remove the record of this key's session and its copy."""
        self.drop(caller, session_id)
        if self._copies is not None:
            self._copies.delete(caller, session_id)

    def _hold(self, caller: Caller, session_id: str, state: SessionState) -> None:
        self.drop(caller, session_id)
        kept = _Kept(caller, state, state.size, self._clock() + self._keep_s)
        self._kept[caller.identity, session_id] = kept
        self._names.setdefault(caller.identity, OrderedDict())[session_id] = None
        self._tokens_of[caller.identity] += kept.size
        self._tokens += kept.size
        self.expire()

    def find(self, caller: Caller, session_id: str) -> SessionState | None:
        """Return the record of this key's session, or None. The record stays until :meth:`take`."""
        self.expire()
        kept = self._kept.get((caller.identity, session_id))
        return kept.state if kept is not None else None

    def take(self, caller: Caller, state: SessionState) -> bool:
        """Remove a record that :meth:`find` returned.

        Returns:
            False where the record is gone: another connection has taken it, or it was dropped.
        """
        kept = self._kept.get((caller.identity, state.session_id or ""))
        if kept is None or kept.state is not state:
            return False
        self.drop(caller, kept.state.session_id or "")
        return True

    def drop(self, caller: Caller, session_id: str) -> None:
        """Remove the record of this key's session, if there is one."""
        self._remove((caller.identity, session_id))

    def callers(self) -> set[Caller]:
        """Return the keys that have records."""
        return {kept.caller for kept in self._kept.values()}

    def snapshots(self) -> list[PersonaSnapshot]:
        """Return the versions of stored personas that the records hold."""
        return [kept.state.snapshot for kept in self._kept.values() if kept.state.snapshot is not None]

    def revoke(self, caller: Caller) -> None:
        """Remove all records of a key that was revoked or has expired."""
        for identity, session_id in [name for name, kept in self._kept.items() if kept.caller == caller]:
            self._remove((identity, session_id))
            if self._copies is not None:
                self._copies.delete(caller, session_id)

    def expire(self) -> None:
        """Drop the records whose time is over; beyond the limit, the oldest ones of the key that holds most."""
        now = self._clock()
        while self._kept:
            name, oldest = next(iter(self._kept.items()))
            if oldest.until > now:
                break
            self._remove(name)
        while self._tokens > self._max_tokens:
            identity = max(self._tokens_of, key=self._tokens_of.__getitem__)
            self._remove((identity, next(iter(self._names[identity]))))

    def _remove(self, name: tuple[str, str]) -> None:
        if (kept := self._kept.pop(name, None)) is None:
            return
        identity, session_id = name
        self._tokens -= kept.size
        self._tokens_of[identity] -= kept.size
        del self._names[identity][session_id]
        if not self._names[identity]:
            del self._names[identity], self._tokens_of[identity]

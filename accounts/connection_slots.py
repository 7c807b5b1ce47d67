"""Connection slots: bound the number of open connections, on the whole server and per key."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Protocol, TypedDict

from accounts.callers import Caller


class Capacity(TypedDict):
    """Connection counts, as ``server_at_capacity`` and ``/status`` report them."""

    active: int
    max: int
    available: int
    at_capacity: bool


def capacity(active: int, maximum: int) -> Capacity:
    """Return the counts for ``active`` connections out of ``maximum``."""
    available = max(0, maximum - active)
    return {"active": active, "max": maximum, "available": available, "at_capacity": available == 0}


class ConnectionSlot(Protocol):
    """One taken slot."""

    def release(self) -> None:
        """Free the slot. Never waits, so that it fits into ``finally``; a second call does nothing."""
        ...


class ConnectionSlots(Protocol):
    """Hands out slots. A caller's own limit is read at every :meth:`acquire`: a changed one governs the next."""

    async def acquire(self, caller: Caller, timeout_s: float) -> ConnectionSlot | None:
        """Take a slot.

        Args:
            caller: Whose key; its own limit holds beside the server's.
            timeout_s: How long to wait for a slot that becomes free.

        Returns:
            The slot, or None: none became free in time.
        """
        ...

    async def snapshot(self, caller: Caller | None = None) -> Capacity:
        """Return the server's counts, or the caller's own where its own limit is the reason for a refusal."""
        ...

    @property
    def over_granted(self) -> bool:
        """Whether more slots are taken than there are. None is handed out until they fit again."""
        ...

    async def close(self) -> None:
        """Give back every slot of this process. Bounded in time."""
        ...


class _MemorySlot:
    __slots__ = ("_owner", "_prefix")

    def __init__(self, owner: MemoryConnectionSlots, prefix: str) -> None:
        self._owner: MemoryConnectionSlots | None = owner
        self._prefix = prefix

    def release(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner._release(self._prefix)


class MemoryConnectionSlots:
    """Connection slots of one process, in order of arrival. A caller at its own limit does not delay others."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._active: Counter[str] = Counter()
        self._waiting: deque[tuple[Caller, asyncio.Future[ConnectionSlot]]] = deque()

    async def acquire(self, caller: Caller, timeout_s: float) -> ConnectionSlot | None:
        """See :class:`ConnectionSlots`."""
        if self._free_for(caller):
            return self._take(caller)
        if timeout_s <= 0:
            return None
        slot: asyncio.Future[ConnectionSlot] = asyncio.get_running_loop().create_future()
        waiter = (caller, slot)
        self._waiting.append(waiter)
        try:
            await asyncio.wait((slot,), timeout=timeout_s)
        except asyncio.CancelledError:
            if slot.done():  # granted in the same step of the loop
                slot.result().release()
            raise
        finally:
            if not slot.done():
                self._waiting.remove(waiter)
        return slot.result() if slot.done() else None

    async def snapshot(self, caller: Caller | None = None) -> Capacity:
        """See :class:`ConnectionSlots`."""
        total = self._active.total()
        if caller is not None and caller.limits.connections is not None and total < self._maximum:
            own = self._active[caller.prefix]
            if own >= caller.limits.connections:
                return capacity(own, caller.limits.connections)
        return capacity(total, self._maximum)

    @property
    def over_granted(self) -> bool:
        """Never: one process counts exactly."""
        return False

    async def close(self) -> None:
        """Do nothing: the slots end with the process."""

    def _free_for(self, caller: Caller) -> bool:
        own = caller.limits.connections
        return self._active.total() < self._maximum and (own is None or self._active[caller.prefix] < own)

    def _take(self, caller: Caller) -> ConnectionSlot:
        self._active[caller.prefix] += 1
        return _MemorySlot(self, caller.prefix)

    def _release(self, prefix: str) -> None:
        self._active[prefix] -= 1
        if not self._active[prefix]:
            del self._active[prefix]
        for waiter in self._waiting:
            caller, slot = waiter
            if self._free_for(caller):
                self._waiting.remove(waiter)
                slot.set_result(self._take(caller))
                return

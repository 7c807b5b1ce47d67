"""Places: how many connections may live at once, on the whole server and per key."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Protocol, TypedDict

from accounts.callers import Caller


class Capacity(TypedDict):
    """What a refused client is told."""

    active: int
    max: int
    available: int
    at_capacity: bool


def capacity(active: int, maximum: int) -> Capacity:
    """The numbers of ``active`` places taken out of ``maximum``."""
    available = max(0, maximum - active)
    return {"active": active, "max": maximum, "available": available, "at_capacity": available == 0}


class Place(Protocol):
    """One taken place. :meth:`release` may be called any number of times and never waits: fit for ``finally``."""

    def release(self) -> None: ...


class Places(Protocol):
    """Where places are taken. A caller's own limit is read at every :meth:`acquire`: a changed one governs the next."""

    async def acquire(self, caller: Caller, timeout_s: float) -> Place | None:
        """A place, waiting for one at most ``timeout_s`` seconds; None when there was none."""
        ...

    async def snapshot(self, caller: Caller | None = None) -> Capacity:
        """The server's numbers, or the caller's own where its own limit is what leaves it without a place."""
        ...

    async def close(self) -> None:
        """Lets go of what the process holds for this."""
        ...


class _MemoryPlace:
    __slots__ = ("_owner", "_prefix")

    def __init__(self, owner: MemoryPlaces, prefix: str) -> None:
        self._owner: MemoryPlaces | None = owner
        self._prefix = prefix

    def release(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner._release(self._prefix)


class MemoryPlaces:
    """Places of one process. Who waits is served in order; one held up by its own limit holds up nobody else."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._active: Counter[str] = Counter()
        self._waiting: deque[tuple[Caller, asyncio.Future[Place]]] = deque()

    async def acquire(self, caller: Caller, timeout_s: float) -> Place | None:
        """See :class:`Places`."""
        if self._free_for(caller):
            return self._take(caller)
        if timeout_s <= 0:
            return None
        place: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        waiter = (caller, place)
        self._waiting.append(waiter)
        try:
            await asyncio.wait((place,), timeout=timeout_s)
        except asyncio.CancelledError:
            if place.done():  # handed over in the same moment
                place.result().release()
            raise
        finally:
            if not place.done():
                self._waiting.remove(waiter)
        return place.result() if place.done() else None

    async def snapshot(self, caller: Caller | None = None) -> Capacity:
        """See :class:`Places`."""
        total = self._active.total()
        if caller is not None and caller.limits.connections is not None and total < self._maximum:
            own = self._active[caller.prefix]
            if own >= caller.limits.connections:
                return capacity(own, caller.limits.connections)
        return capacity(total, self._maximum)

    async def close(self) -> None:
        """Nothing is held."""

    def _free_for(self, caller: Caller) -> bool:
        own = caller.limits.connections
        return self._active.total() < self._maximum and (own is None or self._active[caller.prefix] < own)

    def _take(self, caller: Caller) -> Place:
        self._active[caller.prefix] += 1
        return _MemoryPlace(self, caller.prefix)

    def _release(self, prefix: str) -> None:
        self._active[prefix] -= 1
        if not self._active[prefix]:
            del self._active[prefix]
        for waiter in self._waiting:
            caller, place = waiter
            if self._free_for(caller):
                self._waiting.remove(waiter)
                place.set_result(self._take(caller))
                return

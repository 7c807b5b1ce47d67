"""Sessions that another connection can take over: those of lost connections, and those whose connection seems open."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Protocol

from accounts.callers import Caller
from inference.prompting.heard import Heard
from inference.protocol.errors import ErrorCode, ProtocolError
from inference.protocol.messages import Resume
from inference.session_turns import SessionTurns
from personas.snapshot import PersonaSnapshot

MAX_LOST = 256


class SessionHolder(Protocol):
    """The session of an open connection."""

    def hand_over(self) -> None:
        """Give the turns up and close the connection: another connection goes on."""
        ...


@dataclass(slots=True)
class _Lost:
    caller: Caller
    turns: SessionTurns
    sent: int  # characters of the last reply that were handed to the lost connection
    timer: asyncio.TimerHandle
    keep: bool = True
    ending: asyncio.Task[None] | None = None


class ResumableSessions:
    """Holds sessions under (key, session id). All calls belong to the serving loop.

    The reply of a lost connection goes on for the grace time. Afterwards the reply is cancelled and cut to the part
    that was sent, and the session's record stays with the kept sessions.

    Args:
        grace_s: how long a session stays resumable after its connection was lost, in seconds; 0 never.
        max_lost: the limit of lost sessions. The key that has most loses its oldest first. A key's own limit of
            connections holds as well.
    """

    def __init__(self, grace_s: float = 0.0, max_lost: int = MAX_LOST) -> None:
        self._grace_s = grace_s
        self._max_lost = max_lost
        self._open: dict[tuple[str, str], tuple[SessionTurns, SessionHolder]] = {}
        self._lost: OrderedDict[tuple[str, str], _Lost] = OrderedDict()  # in the order of their loss
        self._closed = False

    def __len__(self) -> int:
        return len(self._lost)

    @property
    def running(self) -> int:
        """Turns of lost sessions that run now. Other threads may read this."""
        return sum(lost.turns.runner.running for lost in tuple(self._lost.values()))

    # -- open connections --------------------------------------------------------------------------

    def opened(self, caller: Caller, turns: SessionTurns, holder: SessionHolder) -> None:
        """Register the session of an open connection. The newest of several connections counts."""
        if self._grace_s > 0 and (session_id := turns.state.session_id) is not None:
            self._open[caller.identity, session_id] = (turns, holder)

    def closed(self, caller: Caller, turns: SessionTurns) -> None:
        """Forget the session of an open connection: the connection ends, or has another session now."""
        name = (caller.identity, turns.state.session_id or "")
        if name in self._open and self._open[name][0] is turns:
            del self._open[name]

    # -- lost connections --------------------------------------------------------------------------

    def put(self, caller: Caller, turns: SessionTurns) -> bool:
        """Take the session of a lost connection. Its running turn goes on without a receiver.

        Returns:
            False where nothing can be resumed: the caller ends the turn.
        """
        session_id, last = turns.state.session_id, turns.runner.last
        if self._closed or self._grace_s <= 0 or session_id is None or last is None:
            return False
        name = (caller.identity, session_id)
        if name in self._lost:  # of another connection with the same session
            return False
        turns.detach()
        timer = asyncio.get_running_loop().call_later(self._grace_s, self._end, name)
        self._lost[name] = _Lost(caller, turns, last.line.characters, timer)
        turns.keep(caller)
        self._bound(caller)
        return True

    def find(self, caller: Caller, message: Resume) -> SessionTurns:
        """Return the session of this key whose last turn a client wants.

        Raises:
            ProtocolError: ``unknown_session``; ``invalid_message`` where the client has more text than was sent.
        """
        name = (caller.identity, message.session_id)
        lost = self._lost.get(name)
        found = [lost.turns] if lost is not None and lost.ending is None else []
        found += [self._open[name][0]] if name in self._open else []
        for turns in found:
            if turns.count == message.turn and (last := turns.runner.last) is not None:
                last.check_received(message.received)
                return turns
        raise ProtocolError(ErrorCode.UNKNOWN_SESSION, "there is no such turn to resume")

    def take(self, caller: Caller, turns: SessionTurns) -> None:
        """Remove a session that :meth:`find` returned in this step of the loop. An open connection is closed."""
        name = (caller.identity, turns.state.session_id or "")
        lost = self._lost.get(name)
        if lost is not None and lost.turns is turns:
            lost.timer.cancel()
            del self._lost[name]
            turns.drop_kept(caller)
        elif name in self._open:
            self._open.pop(name)[1].hand_over()

    async def end(self, caller: Caller, session_id: str) -> None:
        """End a lost session now and wait until its last turn is recorded: the client goes on without the reply."""
        ending = self._end((caller.identity, session_id))
        if ending is not None:
            await asyncio.wait({ending})

    # -- keys and the process ----------------------------------------------------------------------

    def callers(self) -> set[Caller]:
        """Return the keys that have lost sessions."""
        return {lost.caller for lost in self._lost.values()}

    def snapshots(self) -> list[PersonaSnapshot]:
        """Return the versions of stored personas that lost sessions hold."""
        found = (lost.turns.state.snapshot for lost in self._lost.values())
        return [snapshot for snapshot in found if snapshot is not None]

    def revoke(self, caller: Caller) -> None:
        """Drop the lost sessions of a key that was revoked or has expired."""
        for name, lost in list(self._lost.items()):
            if lost.caller == caller:
                lost.keep = False
                self._end(name)

    async def aclose(self) -> None:
        """End all lost sessions and take no more: the process stops."""
        self._closed = True
        endings = {ending for name in list(self._lost) if (ending := self._end(name)) is not None}
        if endings:
            await asyncio.wait(endings)

    # -- internal ----------------------------------------------------------------------------------

    def _bound(self, caller: Caller) -> None:
        limit = caller.limits.connections
        own = [name for name, lost in self._lost.items() if lost.caller.identity == caller.identity and not lost.ending]
        if limit is not None:
            for name in own[: max(0, len(own) - limit)]:
                self._end(name)
        waiting = [name for name, lost in self._lost.items() if not lost.ending]
        if len(waiting) > self._max_lost:  # by one: this is called for each new lost session
            counts = Counter(identity for identity, _ in waiting)
            most = max(counts.values())
            self._end(next(name for name in waiting if counts[name[0]] == most))

    def _end(self, name: tuple[str, str]) -> asyncio.Task[None] | None:
        lost = self._lost.get(name)
        if lost is None:
            return None
        lost.timer.cancel()
        if lost.ending is None:
            lost.ending = asyncio.create_task(self._finish(name, lost), name="end of a lost session")
        return lost.ending

    async def _finish(self, name: tuple[str, str], lost: _Lost) -> None:
        try:
            await lost.turns.runner.abort()
            lost.turns.state.cut_last_reply(Heard(lost.sent))
            if lost.keep:
                lost.turns.keep(lost.caller)
            else:
                lost.turns.forget(lost.caller)
        finally:
            del self._lost[name]

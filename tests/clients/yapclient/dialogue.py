"""A conversation that outlives its connection: it keeps the persona and what was said, and reconnects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from yapclient.address import Server
from yapclient.backoff import Backoff
from yapclient.connection import Connection
from yapclient.errors import YapError
from yapclient.events import Ack
from yapclient.opening import REPLY_TIMEOUT_S, open_connection
from yapclient.persona import Persona
from yapclient.turn import Turn

PATIENT = Backoff(attempts=8, without_server=True)


@dataclass
class Dialogue:
    """``said`` is the client's own record, (user, assistant) pairs; a new connection is told it with its first turn."""

    server: Server
    persona: Persona
    sampling: Mapping[str, float] = field(default_factory=dict)
    timeout: float = REPLY_TIMEOUT_S
    backoff: Backoff = PATIENT
    on_wait: Callable[[YapError, float], None] | None = None
    on_open: Callable[[Connection], None] | None = None
    said: list[tuple[str, str]] = field(default_factory=list)
    connection: Connection | None = None
    _connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _told: Persona | None = None  # who the server's session is, as far as we told it
    _record_told: bool = False  # the server's record is ours

    @property
    def connected(self) -> bool:
        """Whether the line is open, as far as one can know."""
        return self.connection is not None and self.connection.lost is None

    @property
    def history(self) -> str:
        """What was said, as the wire wants it."""
        lines: list[str] = []
        for user, assistant in self.said:
            lines += [f"User: {user}"] if user else []
            lines += [f"Assistant: {assistant}"] if assistant else []
        return "\n".join(lines)

    async def connect(self) -> Connection:
        """The open connection; a new one where there is none. Raises as :func:`open_connection`."""
        async with self._connecting:
            if self.connection is None or self.connection.lost is not None:
                await self.close()
                self.connection = await open_connection(
                    self.server, timeout=self.timeout, backoff=self.backoff, on_wait=self.on_wait
                )
                self._told = None
                self._record_told = not self.said
                if self.on_open is not None:
                    self.on_open(self.connection)
            return self.connection

    async def say(self, text: str, heard: int | None = None) -> Turn:
        """The next turn, sent; what is still being said is interrupted. Hand it to :meth:`keep` when it is over."""
        connection = await self.connect()
        turn = connection.turn(
            text,
            persona=None if self._told is self.persona else self.persona,
            history=None if self._record_told else self.history,
            sampling=self.sampling,
            heard=heard,
        )
        await turn.send()
        self._told, self._record_told = self.persona, True
        return turn

    async def followup(self, analysis: str) -> Turn:
        """What was found on the screen, sent as the turn after a yes."""
        return await (await self.connect()).followup(analysis).send()

    def keep(self, user: str, turn: Turn, heard: int | None = None) -> None:
        """Record a turn that is over (or was given up), cut to what was heard."""
        if turn.error is not None and turn.done is None:
            self._told, self._record_told = None, False  # refused: nothing of it was taken
        reply = turn.reply if heard is None else turn.text[:heard]
        if turn.error is None or reply:
            self.said.append((user, reply))

    async def become(self, persona: Persona) -> Ack | None:
        """Swap the persona: at once where the session has begun, else with the next turn (None)."""
        ack = None
        if self.connected and self._told is not None and self.connection is not None:
            ack = await self.connection.chat_prompt(persona)
            self._told = persona
        self.persona = persona
        return ack

    def rewrite(self, persona: Persona) -> None:
        """The same persona in other words: told with the next turn."""
        self.persona = persona
        self._told = None

    def forget(self) -> None:
        """Begin anew: the next turn clears the server's record."""
        self.said.clear()
        self._record_told = False

    async def close(self) -> None:
        """Hang up."""
        if self.connection is not None:
            with contextlib.suppress(YapError):
                await self.connection.close()
            self.connection = None

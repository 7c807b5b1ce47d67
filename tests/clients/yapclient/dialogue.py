"""A conversation that survives its connection: keeps the persona and the exchanges, and reconnects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from yapclient.address import Server
from yapclient.backoff import Backoff
from yapclient.connection import Connection
from yapclient.errors import ConnectionLost, YapError
from yapclient.events import Ack
from yapclient.opening import REPLY_TIMEOUT_S, open_connection
from yapclient.persona import Persona
from yapclient.turn import Turn

PATIENT = Backoff(attempts=8, without_server=True)


@dataclass
class Dialogue:
    """State of a conversation.

    `said` holds (user, assistant) pairs; the first turn on a new connection sends them as `history_text`. `timeout`
    is in seconds.
    """

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
    _sent_persona: Persona | None = None  # the persona of the server's session
    _history_sent: bool = False  # the server's history equals `said`

    @property
    def connected(self) -> bool:
        """Whether the connection is open, as far as this client knows."""
        return self.connection is not None and self.connection.lost is None

    @property
    def history(self) -> str:
        """The conversation as `history_text`."""
        lines: list[str] = []
        for user, assistant in self.said:
            lines += [f"User: {user}"] if user else []
            lines += [f"Assistant: {assistant}"] if assistant else []
        return "\n".join(lines)

    async def connect(self) -> Connection:
        """Return the open connection; opens one if there is none, after the wait that a stopping server asked for.

        Raises as :func:`open_connection`.
        """
        async with self._connecting:
            if self.connection is None or self.connection.lost is not None:
                lost = self.connection.lost if self.connection is not None else None
                await self.close()
                if isinstance(lost, ConnectionLost) and lost.reconnect_in is not None:
                    await self._wait(lost, self.backoff.wait(1, lost.reconnect_in))
                self.connection = await open_connection(
                    self.server, timeout=self.timeout, backoff=self.backoff, on_wait=self.on_wait
                )
                self._sent_persona = None
                self._history_sent = not self.said
                if self.on_open is not None:
                    self.on_open(self.connection)
            return self.connection

    async def _wait(self, lost: YapError, seconds: float) -> None:
        if self.on_wait is not None:
            self.on_wait(lost, seconds)
        await asyncio.sleep(seconds)

    async def say(self, text: str, heard: int | None = None) -> Turn:
        """Send the next turn; a running one is interrupted. Pass the turn to :meth:`keep` when it has ended.

        Args:
            text: the user's message.
            heard: characters of the last reply that the user heard; None: all that was sent.
        """
        connection = await self.connect()
        turn = connection.turn(
            text,
            persona=None if self._sent_persona is self.persona else self.persona,
            history=None if self._history_sent else self.history,
            sampling=self.sampling,
            heard=heard,
        )
        await turn.send()
        self._sent_persona, self._history_sent = self.persona, True
        return turn

    async def followup(self, analysis: str) -> Turn:
        """Send the description of the screen as the turn after a yes."""
        return await (await self.connect()).followup(analysis).send()

    def keep(self, user: str, turn: Turn, heard: int | None = None) -> None:
        """Record a turn that has ended or was given up.

        Args:
            user: the user's message.
            turn: the turn.
            heard: keep this many characters of the reply; None: all.
        """
        if turn.error is not None and turn.done is None:
            self._sent_persona, self._history_sent = None, False  # refused: the server took nothing
        reply = turn.reply if heard is None else turn.text[:heard]
        if turn.error is None or reply:
            self.said.append((user, reply))

    async def become(self, persona: Persona) -> Ack | None:
        """Change the persona: at once if the session has started, else with the next turn.

        Returns:
            The server's answer, or None if the change is sent with the next turn.
        """
        ack = None
        if self.connected and self._sent_persona is not None and self.connection is not None:
            ack = await self.connection.chat_prompt(persona)
            self._sent_persona = persona
        self.persona = persona
        return ack

    def rewrite(self, persona: Persona) -> None:
        """Replace the text of the current persona; sent with the next turn."""
        self.persona = persona
        self._sent_persona = None

    def forget(self) -> None:
        """Clear the conversation; the next turn clears the server's history."""
        self.said.clear()
        self._history_sent = False

    async def close(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            with contextlib.suppress(YapError):
                await self.connection.close()
            self.connection = None

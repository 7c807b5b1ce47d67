"""A conversation that survives its connection: reconnects, resumes the running reply, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from yapclient.address import Server
from yapclient.backoff import Backoff
from yapclient.connection import Connection
from yapclient.errors import ConnectionLost, YapError
from yapclient.events import Ack, Error, Event
from yapclient.opening import REPLY_TIMEOUT_S, open_connection
from yapclient.persona import Persona
from yapclient.turn import Turn

PATIENT = Backoff(attempts=8, without_server=True)
FINAL = frozenset({"authentication_failed", "key_revoked"})  # another attempt with the same key fails as well
TAKEN_OVER = 4001  # close code: another connection has resumed the session
RESUMES = 8  # lost connections in a row, without a limit of attempts


@dataclass
class Dialogue:
    """State of a conversation.

    `said` holds (user, assistant) pairs. The server keeps the record of a lost connection; where the server has none,
    the turn begins again with `said` as `history_text`. `on_resume` is called when a running reply goes on at another
    connection. `timeout` is in seconds.
    """

    server: Server
    persona: Persona
    sampling: Mapping[str, float] = field(default_factory=dict)
    timeout: float = REPLY_TIMEOUT_S
    backoff: Backoff = PATIENT
    on_wait: Callable[[YapError, float], None] | None = None
    on_open: Callable[[Connection], None] | None = None
    on_resume: Callable[[Turn], None] | None = None
    said: list[tuple[str, str]] = field(default_factory=list)
    session_id: str = field(default_factory=lambda: f"cli-{uuid.uuid4().hex[:12]}")
    connection: Connection | None = None
    _connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _sent_persona: Persona | None = None  # the persona of the server's session
    _history_sent: bool = False  # the server's history equals `said`
    _unproven: bool = False  # on this connection the server has not said yet that it has the record
    _current: Turn | None = None
    _number: int = 0  # of the last turn on this connection

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
                self.connection.session_id = self.session_id
                self._number, self._sent_persona = 0, None
                self._unproven = bool(self.said)
                if self._current is None:
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
            recovery=self._recover,
        )
        return await self._send(turn)

    async def followup(self, analysis: str) -> Turn:
        """Send the description of the screen as the turn after a yes."""
        return await self._send((await self.connect()).followup(analysis, self._recover))

    async def _send(self, turn: Turn) -> Turn:
        self._current = turn
        try:
            await turn.send()
        except ConnectionLost as lost:
            if not await self._recover(turn, lost):
                raise
        self._sent_persona, self._history_sent = self.persona, True
        return turn

    # -- lost connections --------------------------------------------------------------------------------------------

    async def _recover(self, turn: Turn, event: Event | ConnectionLost) -> bool:
        """See :data:`yapclient.turn.Recovery`."""
        if isinstance(event, ConnectionLost):
            return turn is self._current and await self._go_on(turn, event)
        self._number = event.turn or self._number
        if isinstance(event, Ack) and event.answers == "start":
            unproven, self._unproven = self._unproven and not turn.has_history, False
            if unproven and not event.resumed and turn is self._current and self.connection is not None:
                await turn.send_again(self.connection, {"history_text": self.history})
                return True
        if isinstance(event, Error) and event.code == "server_draining" and turn.ack is None:
            lost = await self.connection.wait_lost() if self.connection is not None else None
            return isinstance(lost, ConnectionLost) and await self._recover(turn, lost)
        return False

    async def _go_on(self, turn: Turn, lost: ConnectionLost) -> bool:
        """Connect, and resume the turn; a message that the server has not taken is sent again."""
        for _ in range(self.backoff.attempts or RESUMES):
            if lost.code in FINAL or lost.close_code == TAKEN_OVER:
                return False
            expected = turn.number or self._number + 1
            connection = await self.connect()
            try:
                if await turn.resume(connection, expected):
                    self._unproven, self._sent_persona, self._number = False, self.persona, expected
                    if self.on_resume is not None:
                        self.on_resume(turn)
                    return True
                if turn.number is not None or turn.kind == "followup":
                    self._history_sent = False  # the rest of the reply is lost
                    return False
                await turn.send_again(connection, {**self.persona.fields, "session_id": self.session_id})
                return True
            except ConnectionLost as again:
                lost = again
        return False

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

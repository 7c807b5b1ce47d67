"""Sends messages and displays replies; handles interruptions, failures and the record of the conversation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from console import failures
from yapclient import Connection, ConnectionLost, Dialogue, RequestRefused, Token, ToolCall, Turn, YapError
from yapclient.dialogue import PATIENT

from terminal.reply import LineLost, Note, Progress, Reply
from terminal.screen import Screen
from terminal.statistics import Statistics

if TYPE_CHECKING:
    from terminal.talk import Talk

CLOSED_IDLE = 4000


@dataclass
class Speaker:
    """State of the current reply.

    `settled` is called when a reply is finished and displayed. `failed` is the exit status of the last failure, 0 for
    none.
    """

    talk: Talk
    screen: Screen
    dialogue: Dialogue
    settled: Callable[[], None]
    reply: Reply | None = None
    failed: int = 0
    statistics: Statistics = field(default_factory=Statistics)
    _mourned: Connection | None = None  # lost connection that was already reported
    _heard: int | None = None  # characters of the interrupted reply, sent with the next turn

    async def connect(self) -> None:
        """Open the first connection. Afterwards lost connections are reopened with a longer backoff."""
        self.dialogue.on_open = self._opened
        self.dialogue.on_resume = lambda _: self.talk.post(
            Note("The connection broke off and is back; the reply goes on.", alert=True)
        )
        await self.dialogue.connect()
        self.dialogue.backoff = PATIENT
        self.dialogue.on_wait = lambda error, seconds: self.talk.post(
            Note(f"{failures.headline(error)}; trying again in {seconds:.1f} s", alert=True)
        )

    @property
    def speaking(self) -> Reply | None:
        """The reply that is unfinished or not fully displayed; None if there is none."""
        return self.reply if self.reply is not None and not self.reply.settled else None

    def say(self, text: str, *, screen_text: str | None = None, again: bool = False) -> None:
        """Start a turn; a running reply is interrupted and counts as heard as far as it was displayed."""
        self.interrupt()
        heard, self._heard = self._heard, None
        reply = self.reply = Reply(text, screen_text, again)
        reply.task = self.talk.spawn(self._follow(reply, heard))

    def interrupt(self) -> None:
        """End the running reply on the screen and in the record."""
        reply = self.speaking
        if reply is not None:
            if reply.turn is None and reply.task is not None:
                reply.task.cancel()  # still connecting
            self._heard = reply.shown if reply.turn is not None else None
            self.screen.end("interrupted" if reply.shown else "")
            reply.stopped = True
            self._record(reply)

    def stop(self, reply: Reply) -> None:
        """Stop a reply after Ctrl+C."""
        reply.held, reply.stopped = "", True
        if reply.turn is not None and reply.turn.running:
            self.talk.spawn(self._cancel(reply, reply.turn))  # its last frame settles the reply
            return
        if reply.task is not None:
            reply.task.cancel()
        self._settle(reply)

    def go_on(self, reply: Reply) -> None:
        """Display the text that was held while the user typed."""
        self._release(reply)
        if reply.over:
            self._settle(reply)

    def progressed(self, progress: Progress) -> None:
        """Process an event of a reply."""
        reply, event = progress.reply, progress.event
        if reply.settled:
            return
        if isinstance(event, Token) and not reply.stopped:
            if self.talk.draft:
                reply.held += event.text
            else:
                self._show(reply, event.text)
        elif isinstance(event, ToolCall) and event.yes:
            names = f" ({', '.join(event.names)})" if event.names else ""
            self.talk.post(Note(f"The character asks for your screen{names}; describe it with /screen TEXT."))
        if progress.error is not None:
            self._fell(reply, progress.error)
        elif event is None:
            reply.over = True
            if not reply.held:
                self._settle(reply)

    def lost(self, connection: Connection) -> None:
        """Process the end of a connection; a running reply reports it itself."""
        error = connection.lost
        speaking = self.speaking is not None and not self.speaking.over
        if speaking or connection is self._mourned or connection is not self.dialogue.connection:
            return
        if isinstance(error, ConnectionLost) and error.close_code == CLOSED_IDLE:
            self._alert("The server closed the idle connection; your next message opens a new one.")
        elif error is not None:
            self._alert(f"{failures.headline(error)}; reconnecting.")
            self.talk.spawn(self._reconnect())

    def _fell(self, reply: Reply, error: YapError) -> None:
        reply.over = True
        line_lost = isinstance(error, ConnectionLost)
        self._mourned = self.dialogue.connection if line_lost else None
        if line_lost and not reply.shown and not reply.held and not reply.again and not reply.stopped:
            self._alert(f"{failures.headline(error)}; reconnecting and sending the message again.")
            reply.settled = True
            self.say(reply.user, screen_text=reply.screen_text, again=True)
            return
        self._release(reply)
        self.screen.end("cut off" if reply.shown else "")
        if line_lost and not reply.again:
            self._alert(f"{failures.headline(error)}; reconnecting.")
            self.talk.spawn(self._reconnect())
        else:
            self._alert(failures.explain(error))
        self.failed = failures.exit_status(error)
        self._settle(reply)

    def _release(self, reply: Reply) -> None:
        held, reply.held = reply.held, ""
        self._show(reply, held)

    def _show(self, reply: Reply, text: str) -> None:
        if text:
            if not reply.shown:
                self.screen.begin(self.dialogue.persona.name or "Yap")
            self.screen.reply(text if reply.shown else text.lstrip())
            reply.shown += len(text)

    def _settle(self, reply: Reply) -> None:
        turn = reply.turn
        if reply.stopped or (turn is not None and turn.cancelled):
            self.screen.end("stopped")
        elif turn is not None and turn.error is not None:
            self._alert(failures.explain(RequestRefused(turn.error.code, turn.error.message, turn.error.retry_in)))
            self.failed = failures.FAILED
        self.screen.end()
        self._record(reply)
        self.settled()

    def _record(self, reply: Reply) -> None:
        reply.settled = True
        if reply.turn is not None:
            self.dialogue.keep(reply.user, reply.turn, reply.shown if reply.stopped else None)
            self.statistics.add(reply.turn, interrupted=reply.stopped)

    def _alert(self, text: str) -> None:
        self.screen.note(text, alert=True)

    # -- tasks -------------------------------------------------------------------------------------------------------

    async def _follow(self, reply: Reply, heard: int | None) -> None:
        try:
            if reply.screen_text is None:
                reply.turn = await self.dialogue.say(reply.user, heard)
            else:
                reply.turn = await self.dialogue.followup(reply.screen_text)
            async for event in reply.turn:
                self.talk.post(Progress(reply, event))
            self.talk.post(Progress(reply))
        except YapError as error:
            self.talk.post(Progress(reply, error=error))

    async def _cancel(self, reply: Reply, turn: Turn) -> None:
        with contextlib.suppress(YapError):  # the reply reports a lost connection itself
            await turn.cancel(reply.shown)

    def _opened(self, connection: Connection) -> None:
        self.talk.spawn(self._watch(connection))

    async def _watch(self, connection: Connection) -> None:
        await connection.wait_lost()
        self.talk.post(LineLost(connection))

    async def _reconnect(self) -> None:
        try:
            await self.dialogue.connect()
            self.talk.post(Note("Reconnected; the conversation continues.", alert=True))
        except YapError as error:
            self.talk.post(Note(f"{failures.explain(error)}\n  Your next message tries to connect again.", alert=True))

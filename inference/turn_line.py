"""The frames of one turn on their way to a client, and the frames that a client lacks after a lost connection."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from inference.turn_frames import FramesOfTurn

FrameSender = Callable[[str], Awaitable[None]]


class TurnLine:
    """Sends the frames of one turn, in order. One task of the turn sends at a time.

    Text is not kept here: the outbox of the turn has it, and this class only counts its characters.

    Args:
        frames: encodes the frames in the client's protocol. An empty frame is not sent.
        send: sends one frame.
        ack: makes the turn's first frame; None where the message has no ack.
    """

    def __init__(self, frames: FramesOfTurn, send: FrameSender, ack: Callable[[], str] | None = None) -> None:
        self._frames = frames
        self._send = send
        self._ack = ack
        self._toolcall = ""
        self._last: list[str] = []  # `final` or `error`, then `done`
        self._muted = False
        self.first_text_at: float | None = None
        self.characters = 0

    async def acknowledge(self) -> None:
        """Send the ack once. Every other frame of the turn is sent after this call."""
        ack, self._ack = self._ack, None
        if ack is not None:
            await self._emit(ack())

    async def toolcall(self, calls: list[dict[str, Any]], score: float | None) -> None:
        """Send the ack and the tool decision."""
        await self.acknowledge()
        self._toolcall = self._frames.toolcall(calls, score)
        await self._emit(self._toolcall)

    async def token(self, text: str) -> None:
        """Send the next text of the reply."""
        if self.first_text_at is None:
            self.first_text_at = time.perf_counter()
            await self.acknowledge()
        self.characters += len(text)
        frame = self._frames.token(text)
        if frame and not self._muted:  # as in _emit(): one call less for each token
            await self._send(frame)

    async def final(self, text: str) -> None:
        """Send the end of the text."""
        await self._emit_last(self._frames.final(text))

    async def error(self, code: str, message: str, details: Mapping[str, Any]) -> None:
        """Send the error of a turn that failed."""
        await self._emit_last(self._frames.error(code, message, **details))

    async def done(self, usage: Mapping[str, Any] | None = None, *, cancelled: bool = False) -> None:
        """Send the last frame. Nothing is sent afterwards."""
        if self._muted:
            return
        self._muted = True
        frame = self._frames.done(usage, cancelled=cancelled)
        self._last.append(frame)
        if frame:
            await self._send(frame)

    @property
    def muted(self) -> bool:
        """Whether no more frames are sent."""
        return self._muted

    def mute(self) -> None:
        """Send no more frames, also where the turn's task still runs."""
        self._muted = True

    def redirect(self, send: FrameSender) -> None:
        """Send all further frames to another connection."""
        self._send = send

    def missing(self, text: str, received: int) -> Sequence[str]:
        """Return the frames that a client lacks. The turn sends no ack afterwards: the ack of ``resume`` stands for it.

        The tool decision is repeated where the client has no text yet.

        Args:
            text: all text that the turn has handed on.
            received: characters of the text that the client has.
        """
        self._ack = None
        lacking = text[received : self.characters]
        tokens = [self._frames.token(lacking)] if lacking else []
        toolcall = [self._toolcall] if self._toolcall and not received else []
        return [*toolcall, *tokens, *self._last]

    async def _emit_last(self, frame: str) -> None:
        if not self._muted:
            self._last.append(frame)
            await self._emit(frame)

    async def _emit(self, frame: str) -> None:
        if frame and not self._muted:
            await self._send(frame)

"""Events of the interactive client, and the reply that is being received."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from yapclient import Connection, Event, Turn, YapError


@dataclass(eq=False)
class Reply:
    """One reply: as received, and as far as it is displayed. While the user types, new text is kept in `held`."""

    user: str
    screen_text: str | None = None  # description of the screen; set for a followup
    again: bool = False  # second attempt after a lost connection
    task: asyncio.Task[None] | None = None
    turn: Turn | None = None
    shown: int = 0  # displayed characters
    held: str = ""
    over: bool = False  # the last frame arrived, or the turn failed
    stopped: bool = False  # by Ctrl+C
    settled: bool = False  # recorded; later frames are ignored


@dataclass(frozen=True)
class Progress:
    """An event or an error of a reply; without either, the reply's end."""

    reply: Reply
    event: Event | None = None
    error: YapError | None = None


@dataclass(frozen=True)
class LineLost:
    """A connection ended."""

    connection: Connection


@dataclass(frozen=True)
class Note:
    """A message to the user; an `alert` is not part of a transcript."""

    text: str
    alert: bool = False


class Interrupt:
    """Ctrl+C was pressed."""

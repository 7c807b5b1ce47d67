"""One reply on its way from the server to the screen."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from yapclient import Connection, Event, Turn, YapError


@dataclass(eq=False)
class Reply:
    """As it comes in, and as far as it has been shown. While the user types, the rest is ``held`` back."""

    user: str
    screen_text: str | None = None  # a followup: what is on the screen, rather than something said
    again: bool = False  # a second attempt, after the line dropped
    task: asyncio.Task[None] | None = None
    turn: Turn | None = None
    shown: int = 0  # characters
    held: str = ""
    over: bool = False  # its last frame came, or it failed
    stopped: bool = False  # by Ctrl+C
    settled: bool = False  # in the record; what still comes of it is nobody's


@dataclass(frozen=True)
class Progress:
    """An event of a reply; with neither event nor error, its end."""

    reply: Reply
    event: Event | None = None
    error: YapError | None = None


@dataclass(frozen=True)
class LineLost:
    """A connection ended."""

    connection: Connection


@dataclass(frozen=True)
class Note:
    """Something to tell; an ``alert`` is no part of a transcript."""

    text: str
    alert: bool = False


class Interrupt:
    """Ctrl+C."""

"""The interactive conversation: one queue of events, processed in order."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from console.options import Options
from yapclient import Dialogue, Persona, YapError, server_personas

from terminal.editor import Draft, End, Submit
from terminal.keyboard import Keyboard
from terminal.reply import Interrupt, LineLost, Note, Progress
from terminal.screen import Screen
from terminal.speaker import Speaker

TWICE_WITHIN_S = 2.0
LOOK_AT_FILE_EVERY_S = 0.5


class Talk:
    """One run of the client at a terminal or in a pipe. `obey` carries out a line that starts with a slash."""

    def __init__(
        self, given: Options, screen: Screen, dialogue: Dialogue, obey: Callable[[Talk, str], Awaitable[None]]
    ) -> None:
        self.given = given
        self.screen = screen
        self.dialogue = dialogue
        self.speaker = Speaker(self, screen, dialogue, self._ready)
        self.draft = ""
        self.leaving = False
        self.stored: list[Persona] = []  # personas stored on the server
        self.stored_error = ""
        self._obey = obey
        self._queue: asyncio.Queue[object] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._interrupted_at = float("-inf")
        self._keyboard: Keyboard | None = None

    async def run(self) -> int:
        """Run the conversation; returns the exit status.

        Raises:
            YapError: the first connection failed.
        """
        await self.speaker.connect()
        self.screen.note(
            f"Connected to {self.given.server}, talking with {self.dialogue.persona}. /help lists the commands."
        )
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.post, Interrupt())
        loop.add_signal_handler(signal.SIGTERM, self.post, End())
        self.spawn(self._watch_file())
        self.spawn(self.fetch_stored())
        with Keyboard(self.post, self.screen.by_key) as self._keyboard:
            loop.add_signal_handler(signal.SIGCONT, self._keyboard.take)
            try:
                self._ready()
                while not self.leaving:
                    await self._deal_with(await self._queue.get())
            finally:
                self.screen.hide()
                self.screen.end()
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await self.dialogue.close()
        return 0 if self.screen.by_key else self.speaker.failed

    def post(self, happening: object) -> None:
        """Queue an event."""
        self._queue.put_nowait(happening)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine concurrently; it is cancelled at the end of the conversation."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def fetch_stored(self) -> None:
        """Read the list of personas stored on the server; a server without such a list is accepted."""
        try:
            self.stored, self.stored_error = await server_personas(self.given.server), ""
        except YapError as error:
            self.stored_error = str(error)

    async def _deal_with(self, happening: object) -> None:
        if isinstance(happening, Progress):
            self.speaker.progressed(happening)
        elif isinstance(happening, Draft):
            self._drafted(happening.text)
        elif isinstance(happening, Submit):
            await self._submitted(happening.text)
        elif isinstance(happening, Interrupt):
            self._interrupted()
        elif isinstance(happening, LineLost):
            self.speaker.lost(happening.connection)
            self._resume()
        elif isinstance(happening, Note):
            self.screen.note(happening.text, happening.alert)
            self._resume()
        elif isinstance(happening, End):
            self.leaving = True

    def _ready(self) -> None:
        """No reply runs: draw the input line, or read the next line of the pipe."""
        self.screen.draw(self.draft)
        if self._keyboard is not None:
            self._keyboard.more()

    def _resume(self) -> None:
        """After a note, draw the input line again unless a reply is running."""
        if self.draft or self.speaker.speaking is None:
            self.screen.draw(self.draft)

    def _drafted(self, text: str) -> None:
        self.draft = text
        reply = self.speaker.speaking
        if text or reply is None:
            self.screen.draw(text)
        else:
            self.screen.hide()
            self.speaker.go_on(reply)

    async def _submitted(self, text: str) -> None:
        text = text.strip()
        if text and not text.startswith("/"):
            self.draft = ""
            self.screen.hide()
            self.speaker.interrupt()
            self.screen.typed(text)
            self.speaker.say(text)
            return
        if text:
            self.screen.typed(text)
            await self._obey(self, text)
        self._drafted("")
        if self.speaker.speaking is None and self._keyboard is not None:
            self._keyboard.more()

    def _interrupted(self) -> None:
        now = time.monotonic()
        twice = now - self._interrupted_at < TWICE_WITHIN_S
        self._interrupted_at = now
        if self._keyboard is not None:
            self._keyboard.editor.clear()
        self.draft = ""
        self.screen.hide()
        reply = self.speaker.speaking
        if twice:
            self.leaving = True
        elif reply is not None:
            self.speaker.stop(reply)
        else:
            self.screen.note("Press Ctrl+C again to exit.", alert=True)
            self.screen.draw("")

    async def _watch_file(self) -> None:
        file = self.given.personas
        while True:
            await asyncio.sleep(LOOK_AT_FILE_EVERY_S)
            try:
                changed = file.refresh()
            except YapError as error:
                self.post(Note(str(error), alert=True))
                continue
            if not changed:
                continue
            mine = self.dialogue.persona
            edited = file.personas.get(mine.slug or "") if mine.chat_prompt else None
            change = f"{len(file.personas)} personas"
            if edited is not None and edited != mine:
                self.dialogue.rewrite(edited)
                change = f"{edited} is updated from your next message on"
            self.post(Note(f"{file.path.name} has changed: {change}."))

"""Standard input without blocking: keys from a terminal, lines from a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import threading
import tty
from collections.abc import Callable
from typing import Any

from terminal.editor import Draft, Editor, End, Submit


class Keyboard:
    """Passes input events to a callback on the running loop. As a context manager it restores the terminal at exit.

    From a pipe, one line is read per call of :meth:`more`, so that each line is answered before the next.
    """

    def __init__(self, on_event: Callable[[Submit | Draft | End], None], by_key: bool) -> None:
        self.by_key = by_key
        self.editor = Editor()
        self._on_event = on_event
        self._more = threading.Semaphore(0)
        self._before: list[Any] | None = None
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Keyboard:
        if self.by_key:
            self._before = termios.tcgetattr(sys.stdin)
            self.take()
        # A thread, because an event loop cannot watch every kind of stdin on every system. As a daemon it ends with the
        # process.
        threading.Thread(target=self._keys if self.by_key else self._lines, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def take(self) -> None:
        """Switch the terminal to single keys without echo; needed again after Ctrl+Z and `fg`."""
        if self.by_key:
            tty.setcbreak(sys.stdin.fileno(), termios.TCSADRAIN)

    def more(self) -> None:
        """Allow one more line of the pipe to be read."""
        self._more.release()

    def _post(self, call: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call, *args)

    def _fed(self, data: bytes) -> None:
        for event in self.editor.feed(data) if data else [End()]:
            self._on_event(event)

    def _keys(self) -> None:
        data = b"?"
        while data:
            try:
                data = os.read(sys.stdin.fileno(), 4096)
            except OSError:
                data = b""  # the terminal was closed
            self._post(self._fed, data)

    def _lines(self) -> None:
        line = b"?"
        while line:
            self._more.acquire()
            line = sys.stdin.buffer.readline()
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            self._post(self._on_event, Submit(text) if line else End())

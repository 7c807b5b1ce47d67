"""A user at a pseudo-terminal, with keys to press and a screen to read."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.clients_suite.running import command, environment

_STYLE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class TerminalUser:
    """A user. `raw` is all text on the screen so far; :meth:`sees` searches from the end of its last match."""

    def __init__(self, fd: int, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.raw = ""
        self._fd = fd
        self._seen = 0
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(fd, self._read)

    @property
    def text(self) -> str:
        """The written text without colours and cursor movements."""
        return _STYLE.sub("", self.raw).replace("\r", "")

    def presses(self, keys: str) -> None:
        """Send keys as a keyboard does: Enter is `\\r`, Ctrl+C is `\\x03`."""
        os.write(self._fd, keys.encode())

    async def sees(self, what: str, limit_s: float = 20) -> str:
        """Wait until a text appears after the last match; returns the text in between."""
        async with asyncio.timeout(limit_s):
            while (at := self.text.find(what, self._seen)) < 0:
                self._news.clear()
                try:
                    await self._news.wait()
                except asyncio.CancelledError:
                    print(f"waited for {what!r} in {self.text[self._seen :]!r}")
                    raise
        between, self._seen = self.text[self._seen : at], at + len(what)
        return between

    async def leaves(self, limit_s: float = 20) -> int:
        """Wait until the client has ended; returns its exit status."""
        return await asyncio.wait_for(self.process.wait(), limit_s)

    def modes(self) -> list[Any]:
        """Return the settings of the terminal."""
        return termios.tcgetattr(self._fd)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the other side was closed
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._fd)
        self.raw += data.decode("utf-8", "replace")
        self._news.set()


@asynccontextmanager
async def at_terminal(name: str, *arguments: str, cwd: Path) -> AsyncIterator[TerminalUser]:
    """Run a client in a terminal of 80 columns until the block ends."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = await asyncio.create_subprocess_exec(
        *command(name, *arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment({"TERM": "xterm-256color"}),
        cwd=cwd,
        preexec_fn=take_terminal,
    )
    user = TerminalUser(ours, process)
    try:
        yield user
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(theirs)
        os.close(ours)

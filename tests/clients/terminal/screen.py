"""What a conversation looks like: a line to type on, replies that stream, and notes between them."""

from __future__ import annotations

import os
import re
import sys

from console import output
from rich.cells import cell_len

PROMPT = "you> "
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a reply must not do to a terminal


class Screen:
    """``by_key``: a person types here, so the typed line is drawn; else the output is a plain transcript."""

    def __init__(self, by_key: bool) -> None:
        self.by_key = by_key
        self.colour = output.in_colour()
        self._in_line = False  # a reply has begun a line and not ended it
        self._rows = 0  # of the drawn input line, above the caret's
        self._drawn = False

    def draw(self, draft: str) -> None:
        """Show the line that is being typed."""
        if not self.by_key:
            return
        self.hide()
        self._end_line()
        width = max(os.get_terminal_size(sys.stdout.fileno()).columns, 1)
        self._rows = max(cell_len(PROMPT + draft) - 1, 0) // width
        self._put(self._styled(PROMPT, "1") + draft)
        self._drawn = True

    def hide(self) -> None:
        """Take the typed line away."""
        if self._drawn:
            self._put((f"\x1b[{self._rows}A" if self._rows else "") + "\r\x1b[J")
            self._drawn = False

    def typed(self, text: str) -> None:
        """Leave what the user said on the screen."""
        self.hide()
        self._end_line()
        self._put(self._styled(PROMPT if self.by_key else "You: ", "1") + text + "\n")

    def begin(self, name: str) -> None:
        """A reply begins."""
        self.hide()
        self._end_line()
        self._put(self._styled(f"{name}: ", "1;36"))
        self._in_line = True

    def reply(self, text: str) -> None:
        """A piece of a reply."""
        if text:
            self.hide()
            self._put(_CONTROL.sub("", text))
            self._in_line = True

    def end(self, remark: str = "") -> None:
        """A reply is over."""
        self.hide()
        if remark and self._in_line:
            self._put(self._styled(f" ({remark})", "2"))
        self._end_line()

    def note(self, text: str, alert: bool = False) -> None:
        """Something about the conversation, on lines of its own; an alert keeps out of a transcript."""
        self.hide()
        self._end_line()
        if alert and not self.by_key:
            print(text, file=sys.stderr, flush=True)
            return
        for line in text.splitlines():
            self._put(self._styled(line if line.startswith(" ") else f"· {line}", "2") + "\n")

    def _end_line(self) -> None:
        if self._in_line:
            self._put("\n")
            self._in_line = False

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self.colour else text

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

"""Display of a conversation: input line, streaming replies, and notes."""

from __future__ import annotations

import os
import re
import sys

from console import output
from rich.cells import cell_len

PROMPT = "you> "
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # control characters that a terminal would execute


class Screen:
    """Writes to stdout: with `by_key` a terminal with an input line, without it a plain transcript."""

    def __init__(self, by_key: bool) -> None:
        self.by_key = by_key
        self.colour = output.in_colour()
        self._in_line = False  # a reply's line is not finished
        self._rows = 0  # rows of the drawn input line above the caret
        self._drawn = False

    def draw(self, draft: str) -> None:
        """Draw the input line with this text."""
        if not self.by_key:
            return
        self.hide()
        self._end_line()
        width = max(os.get_terminal_size(sys.stdout.fileno()).columns, 1)
        self._rows = max(cell_len(PROMPT + draft) - 1, 0) // width
        self._put(self._styled(PROMPT, "1") + draft)
        self._drawn = True

    def hide(self) -> None:
        """Erase the input line."""
        if self._drawn:
            self._put((f"\x1b[{self._rows}A" if self._rows else "") + "\r\x1b[J")
            self._drawn = False

    def typed(self, text: str) -> None:
        """Print a message of the user."""
        self.hide()
        self._end_line()
        self._put(self._styled(PROMPT if self.by_key else "You: ", "1") + text + "\n")

    def begin(self, name: str) -> None:
        """Start a reply with the name of the persona."""
        self.hide()
        self._end_line()
        self._put(self._styled(f"{name}: ", "1;36"))
        self._in_line = True

    def reply(self, text: str) -> None:
        """Print a piece of a reply; control characters are removed."""
        if text:
            self.hide()
            self._put(_CONTROL.sub("", text))
            self._in_line = True

    def end(self, remark: str = "") -> None:
        """End a reply, with an optional remark in brackets."""
        self.hide()
        if remark and self._in_line:
            self._put(self._styled(f" ({remark})", "2"))
        self._end_line()

    def note(self, text: str, alert: bool = False) -> None:
        """Print a note on its own lines; in a transcript, an alert goes to stderr."""
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

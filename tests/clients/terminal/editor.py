"""A line of input, edited key by key."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)


@dataclass(frozen=True)
class Submit:
    """Enter was pressed; `text` is the line."""

    text: str


@dataclass(frozen=True)
class Draft:
    """The line has changed to `text`."""

    text: str


@dataclass(frozen=True)
class End:
    """End of input: Ctrl+D on an empty line, or the end of a pipe."""


class Editor:
    """Translates the bytes of a terminal in cbreak mode into events.

    Keys: Enter, Backspace, Ctrl+U, Ctrl+W, Ctrl+D, Esc, and arrows up and down for earlier lines. The caret stays at
    the end.
    """

    def __init__(self) -> None:
        self.draft = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")
        self._earlier: list[str] = []
        self._at = 0

    def feed(self, data: bytes) -> list[Submit | Draft | End]:
        """Process bytes.

        Args:
            data: bytes as the terminal sent them; a character may be split between calls.

        Returns:
            The resulting events in order.
        """
        text = self._decode.decode(data)
        done: list[Submit | Draft | End] = []
        before, index = self.draft, 0
        while index < len(text):
            key = text[index]
            if key == "\x1b" and (match := _SEQUENCE.match(text, index)):
                self._escape(match.group(1) or "")
                index = match.end()
                continue
            index += 1
            if key in "\r\n":
                done.append(Submit(self.draft))
                self._remember()
                before = ""
            elif key == "\x04" and not self.draft:
                done.append(End())
            else:
                self._edit(key)
        if self.draft != before:
            done.append(Draft(self.draft))
        return done

    def clear(self) -> None:
        """Empty the line."""
        self.draft = ""

    def _edit(self, key: str) -> None:
        if key in "\x7f\x08":
            self.draft = self.draft[:-1]
        elif key == "\x15":
            self.draft = ""
        elif key == "\x17":
            self.draft = re.sub(r"\S*\s*$", "", self.draft)
        elif key == "\t":
            self.draft += " "
        elif key.isprintable():
            self.draft += key

    def _escape(self, sequence: str) -> None:
        if sequence == "":
            self.draft = ""
        elif sequence in ("[A", "OA", "[B", "OB") and self._earlier:
            self._at = max(0, min(len(self._earlier), self._at + (-1 if sequence.endswith("A") else 1)))
            self.draft = self._earlier[self._at] if self._at < len(self._earlier) else ""

    def _remember(self) -> None:
        if self.draft.strip() and self._earlier[-1:] != [self.draft]:
            self._earlier.append(self.draft)
        self._at = len(self._earlier)
        self.draft = ""

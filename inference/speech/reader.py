"""A streamed text with bounded lookahead."""

from __future__ import annotations

import unicodedata

LINE_BREAKS = "\n\r\u2028\u2029"
# Characters that are looked at, at most, before a mark is decided: text is never held for longer than that.
LOOKAHEAD = 40


class Wait(Exception):
    """The text read so far ends before the decision. The step is taken again when more text has come."""


class Reader:
    """The text that has not been read, and a little about the text before it.

    A step of the lexer peeks as far ahead as its decision needs, and then drops the characters that it has read. Where
    the text ends before that, ``peek`` raises :class:`Wait`, and the step is taken again later: the decision does not
    depend on the pieces in which the text comes.

    Attributes:
        before: the last character read, combining marks and invisible characters apart; empty at the start.
        position: characters read.
    """

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._ended = False
        self.before = ""
        self.position = 0

    def feed(self, text: str) -> None:
        """Append text."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def end(self) -> None:
        """Note that no more text comes."""
        self._ended = True

    def __len__(self) -> int:
        return len(self._text) - self._at

    def peek(self, ahead: int = 0) -> str:
        """Return the character so many places ahead; empty behind the end of the text.

        Raises:
            Wait: the character has not come yet.
        """
        place = self._at + ahead
        if place < len(self._text):
            return self._text[place]
        if self._ended:
            return ""
        raise Wait

    def text(self, start: int, end: int) -> str:
        """Return the characters from ``start`` to ``end`` places ahead, which have been peeked at."""
        return self._text[self._at + start : self._at + end]

    def letters(self) -> str:
        """Return the letters that come next, as far as they have come."""
        end = self._at
        while end < len(self._text) and self._text[end].isalpha():
            end += 1
        return self._text[self._at : end]

    def run_length(self, char: str, at: int = 0) -> int:
        """Return how often ``char`` stands in a row from ``at`` on, up to ``LOOKAHEAD``."""
        length = 0
        while length < LOOKAHEAD and self.peek(at + length) == char:
            length += 1
        return length

    def starts_with(self, text: str, at: int = 0) -> bool:
        """Return whether ``text`` (lower case) comes next, in any letter case."""
        return all(self.peek(at + number).lower() == char for number, char in enumerate(text))

    def rest_of_line(self, chars: str, limit: int) -> str | None:
        """Return the rest of the line if it is made of these characters and blanks alone; else None."""
        length = 0
        while length < limit and (char := self.peek(length)) and char not in LINE_BREAKS:
            if char not in chars and char not in " \t":
                return None
            length += 1
        return self.text(0, length)

    def closing_bracket(self, at: int) -> int | None:
        """Return where the square bracket at ``at`` is closed, in the same line and within ``LOOKAHEAD``; else None."""
        depth, place = 0, at
        while place <= at + LOOKAHEAD:
            char = self.peek(place)
            if not char or char in LINE_BREAKS:
                return None
            depth += (char == "[") - (char == "]")
            if not depth:
                return place
            place += 2 if char == "\\" else 1
        return None

    def has_closing_run(self, char: str, length: int) -> bool:
        """Return whether the run of marks that comes next is closed in the same line, within ``LOOKAHEAD``."""
        place = length
        while place < length + LOOKAHEAD:
            found = self.peek(place)
            if not found or found in LINE_BREAKS:
                return False
            if found == char:
                run = self.run_length(char, place)
                if run >= length and not self.peek(place - 1).isspace():
                    return True
                place += run
            else:
                place += 1
        return False

    def drop(self, length: int) -> None:
        """Read past ``length`` characters."""
        if length:
            self._at += length
            self.position += length
            char = self._text[self._at - 1]
            if char.isascii() or unicodedata.category(char)[0] not in "MC":
                self.before = char

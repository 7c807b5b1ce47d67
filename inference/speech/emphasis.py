"""Marks around words: ``*emphasis*``, ``_emphasis_``, ``~~strikes~~``, ``==highlights==``.

Source: CommonMark 0.31.2, section 6.2 (emphasis: left- and right-flanking delimiter runs). Its rules need the whole
paragraph, and a voice cannot wait for that. A run that can only open emphasis opens at once. Where a run may be a sign
of the text (``foo**bar**baz``), the closing run must follow within ``LOOKAHEAD`` characters. Scripts that put no blanks
between words (Chinese, Japanese, Thai …) have marks inside the text that CommonMark takes for a word; there a run next
to a letter opens and closes too.
"""

from __future__ import annotations

from inference.speech.reader import Reader
from inference.speech.scripts import is_spaceless
from inference.speech.writer import CLOSING_PUNCTUATION, Writer

MARKS = frozenset("*_~=～〜")
_CLOSING_BRACKETS = frozenset(")]}）】」』”’\"'»")


class Emphasis:
    """Reads runs of marks.

    Args:
        reader: the text.
        writer: gets the runs that are text.
    """

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer
        self._open: dict[str, int] = {}  # marks of each kind that are open in this paragraph

    def reset(self) -> None:
        """Close everything: a paragraph ended."""
        self._open.clear()

    def read(self, char: str, *, in_url: bool) -> bool:
        """Read one run of marks.

        Args:
            char: the mark.
            in_url: the run stands in an address.

        Returns:
            True where a single ``*`` opened, which is how role play writes an action.
        """
        if char in "～〜":
            self._wave(char)
            return False
        length = self._reader.run_length(char)
        after = self._reader.peek(length)
        if in_url and char != "*":
            self._writer.say(char * length)
        elif self._closes(char, after):
            self._open[char] = max(0, self._open[char] - length)
        elif self._opens(char, length, after):
            self._open[char] = self._open.get(char, 0) + length
            self._reader.drop(length)
            return char == "*" and length == 1
        elif char == "~" and self._trails(after):
            pass
        elif char == "_" and length >= 3:  # a blank to fill in
            self._writer.gap()
        else:
            self._writer.say(char * length)
        self._reader.drop(length)
        return False

    def _closes(self, char: str, after: str) -> bool:
        before = self._reader.before
        if not self._open.get(char) or not before or before.isspace():
            return False
        return not (char == "_" and after.isalnum() and not is_spaceless(after) and not is_spaceless(before))

    def _opens(self, char: str, length: int, after: str) -> bool:
        before = self._reader.before
        if not after or after.isspace() or (char in "~=" and length != 2):
            return False
        if char == "*" and self._writer.space and self._writer.last.isdigit() and after.isdigit():
            return False  # 3 *4
        if char == "_" and length >= 3 and not after.isalnum():
            return False
        if not before.isalnum() and before not in _CLOSING_BRACKETS:
            return True
        if after.isdigit() or (before.isdigit() and not is_spaceless(after)):
            return False  # 3*4, 2**n, x**2
        if is_spaceless(before) or is_spaceless(after):
            return char == "*" or self._reader.has_closing_run(char, length)
        if char == "_" or (length == 1 and before.isalnum()):
            return False
        return self._reader.has_closing_run(char, length)

    def _trails(self, after: str) -> bool:
        """Return whether a tilde only draws a word out: ``hello~``."""
        before = self._reader.before
        return bool(before) and not before.isspace() and (not after or after.isspace() or after in CLOSING_PUNCTUATION)

    def _wave(self, char: str) -> None:
        length = self._reader.run_length(char)
        if not self._trails(self._reader.peek(length)):
            self._writer.say(char * length)
        self._reader.drop(length)

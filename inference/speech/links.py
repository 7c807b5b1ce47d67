"""Links, addresses, footnotes and source marks: their text is said, their targets are not.

Source: CommonMark 0.31.2, sections 6.3 (links), 6.4 (images) and 6.5 (autolinks). A link's text has at most
``LOOKAHEAD`` characters, so that text with a bracket in it is not held for longer.
"""

from __future__ import annotations

from inference.speech.reader import LINE_BREAKS, LOOKAHEAD, Reader
from inference.speech.writer import Writer

SCHEMES = ("http://", "https://", "mailto:")
_FOOTNOTE_MAX = 20  # characters of a footnote's name
_TARGET_LOOKAHEAD = 12  # characters without a blank that make a target
_TARGET_MAX = 1000  # characters of a target that are read past, at most
_CITATION_END = {"【": "】", "\ue200": "\ue201"}  # as assistants with a search write their sources


class Links:
    """Reads square brackets and addresses.

    Args:
        reader: the text.
        writer: gets what is text.

    Attributes:
        in_url: the text that is read is an address: its signs are said.
    """

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer
        self.in_url = False
        self._in_autolink = False
        self._text_ends: list[int] = []  # positions where the texts of open links end, the innermost last
        self._target = 0  # brackets open in the target that is read past; 0 outside of a target
        self._target_end = 0  # position where the target ends in any case
        self._quote = ""

    @property
    def in_target(self) -> bool:
        """Whether the text that is read is the target of a link."""
        return bool(self._target)

    def end_word(self) -> None:
        """White space ends an address."""
        self.in_url = self._in_autolink = False

    def read_end(self, char: str) -> bool:
        """Read past the part of a link that is not said, if the text stands in one; return whether it did."""
        if self._target:
            self._read_target(char)
            return True
        if self._text_ends and self._reader.position == self._text_ends[-1]:
            self._text_ends.pop()
            if self._reader.peek(1) == "(":
                self._reader.drop(2)
                self._target, self._target_end = 1, self._reader.position + _TARGET_MAX
            else:  # the name of a reference link
                close = self._reader.closing_bracket(1)
                self._reader.drop(1 + (close or 0))
            self.end_word()
            return True
        if self._in_autolink and char == ">":
            self._reader.drop(1)
            self.end_word()
            return True
        return False

    def _read_target(self, char: str) -> None:
        if char in LINE_BREAKS or self._reader.position >= self._target_end:
            self._target, self._quote = 0, ""
            return
        if self._quote:
            self._quote = "" if char == self._quote else self._quote
        elif char in "\"'" and self._reader.before.isspace():
            self._quote = char
        else:
            self._target += (char == "(") - (char == ")")
        self._reader.drop(1)

    def read_bracket(self, char: str) -> None:
        """Read ``[`` or ``!``: the start of a link, an image, a footnote mark, or text."""
        reader = self._reader
        start = int(char == "!")
        if reader.peek(start) != "[":
            self._say(char)
            return
        if self._read_footnote(start):
            return
        close = reader.closing_bracket(start)
        follows = reader.peek(close + 1) if close is not None else ""
        if close is not None and (
            (follows == "(" and self._is_target(close + 2)) or (follows == "[" and self._is_reference(close + 1))
        ):
            self._text_ends.append(reader.position + close)
            reader.drop(start + 1)
        else:
            self._say(char)

    def _say(self, char: str) -> None:
        self._writer.say(char)
        self._reader.drop(1)

    def _is_reference(self, at: int) -> bool:
        """Return whether the bracket at ``at`` names a reference; ``a[0][1]`` has none."""
        return not self._reader.before.isalnum() and self._reader.closing_bracket(at) is not None

    def _is_target(self, at: int) -> bool:
        """Return whether a link's target begins at ``at``: words in brackets are none."""
        depth = 1
        for place in range(at, at + _TARGET_LOOKAHEAD):
            char = self._reader.peek(place)
            if not char or char in LINE_BREAKS:
                return False
            if char == " ":
                after = self._reader.peek(place + 1)
                return bool(after) and after in "\"')"
            depth += (char == "(") - (char == ")")
            if not depth:
                return True
        return True

    def _read_footnote(self, at: int) -> bool:
        reader = self._reader
        if at or reader.peek(1) != "^":
            return False
        end = 2
        while (char := reader.peek(end)) and char != "]" and not char.isspace() and end < _FOOTNOTE_MAX:
            end += 1
        if char != "]" or end == 2:
            return False
        self._writer.gap()
        reader.drop(end + 1)
        return True

    def read_citation(self, char: str) -> bool:
        """Read past a source mark such as ``【3†source】``; return whether there was one."""
        reader, end = self._reader, 1
        while (found := reader.peek(end)) and found != _CITATION_END[char] and end < LOOKAHEAD:
            if found in LINE_BREAKS:
                return False
            end += 1
        if found != _CITATION_END[char] or (char == "【" and "†" not in reader.text(0, end)):
            return False
        self._writer.gap()
        reader.drop(end + 1)
        return True

    def read_colon(self) -> bool:
        """Read ``://``, from where on the text is an address; return whether there was one."""
        reader = self._reader
        if not reader.before.isalnum() or reader.peek(1) != "/" or reader.peek(2) != "/":
            return False
        self.in_url = True
        self._writer.say("://")
        reader.drop(3)
        return True

    def read_autolink(self) -> bool:
        """Read the ``<`` of ``<http://…>``; return whether there was one."""
        if not any(self._reader.starts_with(scheme, 1) for scheme in SCHEMES):
            return False
        self._reader.drop(1)
        self.in_url = self._in_autolink = True
        return True

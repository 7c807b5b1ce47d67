"""Parts of a reply that a persona's voice may leave out: actions, asides, and words out of character."""

from __future__ import annotations

from inference.speech.reader import Reader
from inference.speech.scripts import is_spaceless

ACTIONS, ASIDES, OOC, CODE = "actions", "asides", "ooc", "code"  # the kinds, as ``personas.snapshot`` names them
_PAIRS = {"(": ")", "（": "）", "[": "]", "{": "}"}


class Asides:
    """Reads past the parts that are not said. A part that is not closed ends with its paragraph.

    Args:
        reader: the text.
        skipped: the kinds that are not said:

            - ``actions``: ``*smiles*``, between single asterisks
            - ``asides``: ``(softly)``, round brackets that do not follow a word without a blank
            - ``ooc``: ``[OOC: …]`` in any brackets, ``((…))``, and lines that begin with ``OOC:``
            - ``code``: code blocks (see ``inference.speech.blocks``)
    """

    def __init__(self, reader: Reader, skipped: frozenset[str]) -> None:
        self._reader = reader
        self._skipped = skipped
        self._opening = self._closing = ""  # the marks of the part that is read past; empty outside of one
        self._depth = 0
        self._paragraph = 0  # the paragraph it began in

    @property
    def skips_actions(self) -> bool:
        """Whether text between single asterisks is not said."""
        return ACTIONS in self._skipped

    @property
    def is_open(self) -> bool:
        """Whether a part was begun and not ended."""
        return bool(self._closing)

    def in_part(self, paragraph: int) -> bool:
        """Return whether the text that is read is not said.

        Args:
            paragraph: the number of the paragraph that is read.
        """
        if self._closing and paragraph != self._paragraph:
            self._closing = ""
        return bool(self._closing)

    def end_line(self) -> None:
        """End a part that has a line of its own."""
        if self._closing == "\n":
            self._closing = ""

    def begin_action(self, paragraph: int) -> None:
        """Begin a part after its opening asterisk was read."""
        self._begin("", "*", paragraph)

    def opens(self, char: str, paragraph: int, *, line_start: bool) -> bool:
        """Begin a part if one opens here; nothing is read yet.

        Args:
            char: the next character.
            paragraph: the number of the paragraph.
            line_start: the character is the first of its line.
        """
        if not self._skipped or not (char in _PAIRS or (line_start and char in "oO")):
            return False
        if OOC in self._skipped:
            if char not in _PAIRS:
                if self._reader.starts_with("ooc:"):
                    self._begin("", "\n", paragraph)
                    return True
                return False
            if self._is_out_of_character(char):
                self._begin(char, _PAIRS[char], paragraph)
                return True
        before = self._reader.before
        if ASIDES in self._skipped and char in "(（" and (char != "(" or not before.isalnum() or is_spaceless(before)):
            self._begin(char, _PAIRS[char], paragraph)
            return True
        return False

    def _begin(self, opening: str, closing: str, paragraph: int) -> None:
        self._opening, self._closing, self._depth, self._paragraph = opening, closing, not opening, paragraph

    def _is_out_of_character(self, char: str) -> bool:
        peek = self._reader.peek
        if char == "(" and peek(1) == "(":
            return True
        at = 1
        while peek(at) == " " and at < 3:
            at += 1
        return self._reader.starts_with("ooc", at) and not peek(at + 3).isalnum()

    def read(self, char: str) -> None:
        """Read one character, or one run of asterisks, of the part."""
        length = 1
        if self._closing == "*" == char:
            length = self._reader.run_length("*")
            self._depth = 0 if length in (1, 3) else 1
        else:
            self._depth += (char == self._opening) - (char == self._closing)
        self._reader.drop(length)
        if not self._depth:
            self._closing = ""

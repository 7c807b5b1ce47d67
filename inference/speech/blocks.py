"""Block structure of Markdown: what opens a line, and where a heading, list item or paragraph ends.

Source: CommonMark 0.31.2, sections 4 (leaf blocks) and 5 (container blocks), and GitHub's tables and task lists.
"""

from __future__ import annotations

from inference.speech.reader import LINE_BREAKS, Reader
from inference.speech.writer import Writer

BULLETS = "•◦‣▪"
LINE_OPENERS = frozenset("`~-*_=:|#>+[0123456789" + BULLETS)
FENCE_INFO_MAX, RULE_MAX = 40, 200  # characters; a longer line is text
_DEFINITION_TARGETS = ("http://", "https://", "mailto:", "www.", "/", "#", "<")


class Blocks:
    """Reads the marks at the start of lines and the line breaks.

    Args:
        reader: the text.
        writer: gets the end of each block.
        skips_code: True where code blocks are not said.

    Attributes:
        line_start: only blanks were read since the line break.
        fence: the mark that opened the code block; empty outside of one.
        in_table: the line is a row of a table.
        in_heading: the line is a heading.
        in_definition: the line says where a reference link leads, and is not said.
        paragraphs: paragraphs ended so far.
    """

    def __init__(self, reader: Reader, writer: Writer, *, skips_code: bool) -> None:
        self._reader = reader
        self._writer = writer
        self.skips_code = skips_code
        self.line_start = True
        self.fence = ""
        self.in_table = False
        self.in_definition = False
        self.paragraphs = 0
        self.in_heading = False
        self._in_list = False
        self._quoted = 0  # quote marks of this line
        self._quoted_before = 0  # and of the line before

    def end_paragraph(self) -> None:
        """End the block that is open."""
        self.paragraphs += 1
        self._writer.end_block()

    def blank(self, char: str) -> None:
        """Read one white-space character, or a line break of two."""
        self._writer.blank()
        if char not in LINE_BREAKS:
            self._reader.drop(1)
            return
        length = 2 if char == "\r" and self._reader.peek(1) == "\n" else 1
        if not self.fence and (self.line_start or self.in_heading or self.in_table):
            self.end_paragraph()
            self._in_list = self._in_list and not self.line_start
        self.line_start, self.in_table, self.in_heading, self.in_definition = True, False, False, False
        self._quoted_before, self._quoted = self._quoted, 0
        self._reader.drop(length)

    def open_line(self, char: str) -> bool:
        """Read past what opens the line: a fence, rule, heading, quote, bullet, check box or table edge.

        Returns:
            False where the line begins with text.
        """
        reader = self._reader
        if self.fence:
            return self._close_fence(char)
        if self._quoted_before and char != ">" and not self._quoted:
            self._quoted_before = 0  # a lazy continuation line belongs to the quote
        if char in "`~" and reader.run_length(char) >= 3:
            return self._open_fence(char)
        if char in "-*_=:|" and self._is_rule(char):
            return True
        if char == "#":
            return self._heading()
        if char == ">":
            return self._quote()
        if char in BULLETS or (char in "-*+" and reader.peek(1) in (" ", "\t")):
            self._item(1)
            return True
        if char == "[":
            return self._check_box() or self._definition()
        if char == "|":
            if not self.in_table:
                self._writer.end_block()
            self.in_table, self.line_start = True, False
            reader.drop(1)
            return True
        if char.isdecimal():
            self._number()
        return False

    def _item(self, mark: int) -> None:
        self.end_paragraph()
        self._in_list = True
        self._reader.drop(mark)

    def _number(self) -> None:
        """End the item before a numbered one. The number is said."""
        length = 1
        while length < 9 and self._reader.peek(length).isdecimal():
            length += 1
        if self._reader.peek(length) in (".", ")") and self._reader.peek(length + 1) in (" ", "\t"):
            first = self._reader.text(0, length) == "1"
            if first or self._in_list:  # only a list that begins with 1 may interrupt a paragraph
                self._item(0)

    def _heading(self) -> bool:
        length = self._reader.run_length("#")
        after = self._reader.peek(length)
        if length > 6 or (after and not after.isspace()):
            return False
        self.end_paragraph()
        self._reader.drop(length)
        self.line_start, self.in_heading = False, True
        return True

    def _quote(self) -> bool:
        if self._reader.peek(1) == "=":
            return False
        self._quoted += 1
        if self._quoted > self._quoted_before:
            self.end_paragraph()
            self._quoted_before = self._quoted
        self._reader.drop(1)
        return True

    def _check_box(self) -> bool:
        peek = self._reader.peek
        if peek(1) in (" ", "x", "X") and peek(2) == "]" and peek(3) in (" ", "\t"):
            self._reader.drop(3)
            return True
        return False

    def _definition(self) -> bool:
        """Read past the line that says where a reference link leads, or the mark of a footnote."""
        reader = self._reader
        footnote = reader.peek(1) == "^"
        close = reader.closing_bracket(0)
        if close is None or reader.peek(close + 1) != ":":
            return False
        at = close + 2
        while at < close + 8 and reader.peek(at) in (" ", "\t"):
            at += 1
        if footnote:
            self.end_paragraph()
            reader.drop(close + 2)
            return True
        if not any(reader.starts_with(target, at) for target in _DEFINITION_TARGETS):
            return False
        self.in_definition = True
        reader.drop(at)
        return True

    def _open_fence(self, mark: str) -> bool:
        reader = self._reader
        length = end = reader.run_length(mark)
        while (char := reader.peek(end)) and char not in LINE_BREAKS:
            if (char == "`" and mark == "`") or end - length > FENCE_INFO_MAX:
                return False  # code in a line
            end += 1
        self.end_paragraph()
        self.fence = mark * length
        reader.drop(end)
        return True

    def _close_fence(self, char: str) -> bool:
        if char != self.fence[0]:
            return False
        line = self._reader.rest_of_line(char, RULE_MAX)
        if line is None or not line.rstrip().startswith(self.fence) or len(set(line.rstrip())) > 1:
            return False
        self.fence = ""
        self.end_paragraph()
        self._reader.drop(len(line))
        return True

    def _is_rule(self, char: str) -> bool:
        """A line of dashes or the like, the line under a heading, or the one under a table's head."""
        line = self._reader.rest_of_line("-:|" if char in "-:|" else char, RULE_MAX)
        if line is None or line.count("-" if char in ":|" else char) < (1 if char == "|" else 3):
            return False
        self.end_paragraph()
        self._reader.drop(len(line))
        return True

"""Text for a voice: Markdown, HTML, emoji and emoticons out, white space folded, sentences ended.

A lexer over a stream. Each step looks ahead only as far as its decision needs, about 40 characters at most; where the
text read so far ends before that, the step is taken again when more has come. So a step decides the same in whatever
pieces the text comes.
"""

from __future__ import annotations

import string

from inference.speech.asides import CODE, Asides
from inference.speech.blocks import LINE_OPENERS, Blocks
from inference.speech.emoji import EMOTICONS
from inference.speech.emphasis import MARKS, Emphasis
from inference.speech.html import Html
from inference.speech.links import Links
from inference.speech.reader import LINE_BREAKS, LOOKAHEAD, Reader, Wait
from inference.speech.signs import Signs
from inference.speech.writer import Writer

_PLAIN_LETTERS = frozenset(string.ascii_letters) - {emoticon[0] for emoticon in EMOTICONS}
_ESCAPABLE = frozenset(string.punctuation)  # CommonMark 0.31.2, section 2.4


class SpeechStyle:
    """One reply for text-to-speech. See :class:`inference.speech.output_style.OutputStyle`.

    Emphasis, headings, bullets, quotes, rules, code marks, link targets, tags and table lines go; their text stays.
    Signs that mark nothing stay: ``3*4``, ``snake_case``, ``5:30``, ``http://a.b/c_d``.

    Args:
        skipped: kinds of text that are not said, of ``actions``, ``asides``, ``ooc`` and ``code``.
    """

    def __init__(self, skipped: frozenset[str] = frozenset()) -> None:
        self._reader = Reader()
        self._writer = Writer()
        self._blocks = Blocks(self._reader, self._writer, skips_code=CODE in skipped)
        self._emphasis = Emphasis(self._reader, self._writer)
        self._links = Links(self._reader, self._writer)
        self._html = Html(self._reader, self._writer, self._blocks)
        self._signs = Signs(self._reader, self._writer)
        self._asides = Asides(self._reader, skipped)
        self._paragraph = 0
        self._code = 0  # backticks that opened the code span that is read; 0 outside of one

    def feed(self, text: str) -> str:
        """Take text; return the text for the voice that is settled now."""
        self._reader.feed(text)
        self._run()
        return self._writer.take()

    def finish(self) -> str:
        """End the reply; return the rest."""
        self._reader.end()
        self._run()
        self._blocks.end_paragraph()
        return self._writer.take()

    @property
    def held(self) -> int:
        """Characters that wait for what follows them."""
        return len(self._reader)

    def _run(self) -> None:
        try:
            while len(self._reader):
                self._step(self._reader.peek())
        except Wait:
            pass

    def _is_plain(self) -> bool:
        """Return whether letters are only letters here."""
        return not (
            self._blocks.fence
            or self._blocks.in_definition
            or self._asides.is_open
            or self._links.in_target
            or self._html.in_tag
        )

    def _read_letters(self) -> None:
        letters = self._reader.letters()
        self._signs.note_word(letters)
        self._writer.say(letters)
        self._reader.drop(len(letters))

    def _step(self, char: str) -> None:
        """Read at least one character, or wait."""
        if self._blocks.paragraphs != self._paragraph:
            self._paragraph = self._blocks.paragraphs
            self._emphasis.reset()
            self._signs.end_paragraph()
            self._code = 0
        if char in _PLAIN_LETTERS and self._is_plain():  # most of a reply
            self._read_letters()
            self._blocks.line_start = False
        elif self._html.in_tag:
            self._html.read_tag(char)
        elif self._links.read_end(char):
            return
        elif self._blocks.in_definition and char not in LINE_BREAKS:
            self._reader.drop(1)
        elif char.isspace():
            self._links.end_word()
            if char in LINE_BREAKS:
                self._code = 0
                self._asides.end_line()
            self._blocks.blank(char)
        elif self._asides.in_part(self._paragraph):
            self._blocks.line_start = False
            self._asides.read(char)
            self._writer.gap()
        elif self._blocks.line_start and char in LINE_OPENERS and self._opens_line(char):
            return
        else:
            if not self._signs.read_emoji(char):
                self._inline(char)
            self._blocks.line_start = False  # at the end: a step that waits changes nothing

    def _opens_line(self, char: str) -> bool:
        if not self._blocks.fence and char == ">" and self._signs.emoticon_length():
            return False
        return self._blocks.open_line(char)

    def _inline(self, char: str) -> None:
        in_url = self._links.in_url
        if self._blocks.fence:
            self._code_block(char)
        elif char == "`":
            self._backticks()
        elif self._code:
            self._say(char)
        elif not in_url and (
            self._signs.read_emptied_brackets(char)
            or self._asides.opens(char, self._paragraph, line_start=self._blocks.line_start)
            or self._signs.read_emoticon()
        ):
            return
        elif char.isalpha():
            self._read_letters()
        elif char in MARKS:
            if self._emphasis.read(char, in_url=in_url) and self._asides.skips_actions:
                self._asides.begin_action(self._paragraph)
                self._writer.gap()
        elif char in "![":
            self._links.read_bracket(char)
        elif not self._reads_sign(char):
            self._say(char)

    def _reads_sign(self, char: str) -> bool:
        """Read a sign that is more than itself; return whether it was one."""
        reader, writer = self._reader, self._writer
        if char == "\\" and (after := reader.peek(1)) and (after in _ESCAPABLE or after in LINE_BREAKS):
            reader.drop(1)
            if after not in LINE_BREAKS:
                self._say(after)
            return True
        if char in "【\ue200":
            return self._links.read_citation(char)
        if char == "<":
            return self._links.read_autolink() or self._html.read_angle()
        if char == "&":
            return self._html.read_entity()
        if char == ":":
            return self._links.read_colon()
        if char == "|" and self._blocks.in_table:
            writer.blank()
            reader.drop(1)
            return True
        if char == "#" and self._blocks.in_heading and writer.space and reader.rest_of_line("#", LOOKAHEAD) is not None:
            reader.drop(reader.run_length("#"))  # the closing marks of a heading
            return True
        return False

    def _say(self, char: str) -> None:
        if char in "()":
            self._signs.note_bracket(char)
        self._writer.say(char)
        self._reader.drop(1)

    def _code_block(self, char: str) -> None:
        if self._blocks.skips_code:
            self._writer.gap()
            self._reader.drop(1)
        else:
            self._say(char)

    def _backticks(self) -> None:
        reader = self._reader
        length = reader.run_length("`")
        if self._code in (0, length):
            if not self._code and length == 1 and reader.before.isalnum() and reader.peek(1).isalnum():
                self._say("`")  # an apostrophe
                return
            self._code = 0 if self._code else length
        reader.drop(length)

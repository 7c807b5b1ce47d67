"""Text for a voice: markdown, emoji and emoticons out, white space folded, decided as early as it can be.

A small lexer over a buffer. Each step looks ahead only as far as its decision needs; where the buffer ends before that,
the step is taken again with the next feed. So a step decides the same however the text was cut.
"""

from __future__ import annotations

import re
import unicodedata

from inference.speech.emoji import (
    EMOJI,
    EMOJI_ON_REQUEST,
    EMOJI_SELECTOR,
    EMOTICONS,
    GLUED_EMOTICONS,
    JOINER,
    KEYCAP,
    KEYCAPS,
    SILENT,
    prefixes,
)

LETTERS = re.compile(r"[^\W\d_]+")
LINE_BREAKS = "\n\r\u2028\u2029"
ESCAPABLE = frozenset("\\`*_{}[]()#+-.!|~<>")
CLOSING = frozenset(".,!?;:)]}…")
BULLETS = "•◦‣▪"
LINE_OPENERS = frozenset("`~-*_=:|#>+[" + BULLETS)
# In characters: what is longer is not taken for one, so that holding stays bounded whatever comes.
LINK_TEXT_MAX, LINK_TARGET_MAX, FENCE_INFO_MAX, RUN_MAX, RULE_MAX = 300, 1000, 100, 64, 200
SCHEMES = ("http://", "https://", "mailto:")
BREAKS = ("<br>", "<br/>", "<br />")
EMOTICON_PREFIXES, GLUED_PREFIXES = prefixes(EMOTICONS), prefixes(GLUED_EMOTICONS)


class _Wait(Exception):
    """The buffer ends before the decision."""


class SpeechStyle:
    """One reply for text-to-speech. See :class:`inference.speech.output_style.OutputStyle`.

    Emphasis, headings, bullets, quotes, rules, code marks, link targets and table lines go; their text stays. Marks
    that mark nothing stay: ``3*4``, ``snake_case``, ``5:30``, ``http://a.b/c_d``.
    """

    def __init__(self) -> None:
        self._buffer = ""
        self._at = 0
        self._ended = False
        self._out: list[str] = []
        self._last = ""  # last character given
        self._space = False  # white space since
        self._removed = False  # an emoji or emoticon went since
        self._space_after = False  # white space since that
        self._before = ""  # last character read
        self._line_start = True
        self._table = False
        self._url = False
        self._code = 0  # backticks that opened the code we are in
        self._fence = ""  # the mark that opened the code block we are in
        self._parentheses = 0
        self._open = {"*": 0, "_": 0, "~": 0}  # emphasis marks open in this paragraph

    def feed(self, text: str) -> str:
        """Take text and give what is settled by now."""
        self._buffer += text
        return self._run()

    def finish(self) -> str:
        """The reply has ended; give the rest."""
        self._ended = True
        return self._run()

    def _run(self) -> str:
        try:
            while self._at < len(self._buffer):
                self._step(self._buffer[self._at])
        except _Wait:
            pass
        self._buffer, self._at = self._buffer[self._at :], 0
        given, self._out = "".join(self._out), []
        return given

    # --- the buffer

    def _peek(self, ahead: int) -> str:
        """The character so far ahead; empty behind the end of the reply."""
        place = self._at + ahead
        if place < len(self._buffer):
            return self._buffer[place]
        if self._ended:
            return ""
        raise _Wait

    def _run_length(self, char: str) -> int:
        length = 1
        while length < RUN_MAX and self._peek(length) == char:
            length += 1
        return length

    def _ahead(self, texts: tuple[str, ...]) -> str:
        """The one of these texts that comes next, or nothing."""
        for text in texts:
            length = 0
            while length < len(text) and self._peek(length).lower() == text[length]:
                length += 1
            if length == len(text):
                return text
        return ""

    def _line_of(self, chars: str) -> str | None:
        """The rest of the line, if it is made of these characters and blanks alone."""
        length = 0
        while length < RULE_MAX and (char := self._peek(length)) and char not in LINE_BREAKS:
            if char not in chars and char not in " \t":
                return None
            length += 1
        return self._buffer[self._at : self._at + length]

    def _drop(self, length: int) -> None:
        """Read past what is not said."""
        if length:
            self._at += length
            char = self._buffer[self._at - 1]
            if char.isascii() or not unicodedata.category(char).startswith("M"):  # a mark belongs to what it is on
                self._before = char

    def _put(self, text: str, length: int | None = None) -> None:
        """Say ``text`` for the next ``length`` characters (default: as many)."""
        first = text[0]
        if self._last and self._needs_space(first):
            self._out.append(" ")
        self._out.append(text)
        self._last = text[-1]
        self._space = self._removed = self._space_after = False
        self._drop(len(text) if length is None else length)

    def _needs_space(self, first: str) -> bool:
        if not self._removed:
            return self._space
        if first in CLOSING:
            return False
        return self._space_after or (first.isalnum() and (self._space or self._last.isalnum() or self._last in CLOSING))

    def _remove(self, length: int) -> None:
        """Read past an emoji or emoticon: it leaves a gap where words would run together, none before a full stop."""
        self._removed, self._space_after = True, False
        self._drop(length)

    # --- the steps: each reads at least one character or waits

    def _step(self, char: str) -> None:
        if char.isspace():
            self._blank(char)
        elif self._line_start and char in LINE_OPENERS and self._opens_line(char):
            return
        else:
            self._line_start = False
            if not self._emoji(char):
                self._inline(char)

    def _blank(self, char: str) -> None:
        self._space = self._space_after = True
        self._url = False
        if char in LINE_BREAKS:
            if self._line_start:  # an empty line ends the paragraph
                self._open = dict.fromkeys(self._open, 0)
                self._parentheses = 0
            self._line_start, self._table, self._code = True, False, 0
        self._drop(1)

    def _opens_line(self, char: str) -> bool:
        """Read past what marks the line: a fence, rule, heading, quote, bullet, box or table edge."""
        if self._fence:
            return self._closes_fence(char)
        if char in "`~" and self._run_length(char) >= 3:
            return self._opens_fence(char)
        if char in "-*_=:|" and self._is_rule(char):
            return True
        if char == "#":
            length = self._run_length(char)
            after = self._peek(length)
            if length > 6 or (after and not after.isspace()):
                return False
            self._drop(length)
            self._line_start = False
            return True
        if char == ">":
            if self._emoticon_length() or self._peek(1) == "=":
                return False
            self._drop(1)
            return True
        if char in BULLETS or (char in "-*+" and self._peek(1) in (" ", "\t")):
            self._drop(1)
            return True
        if char == "[" and self._peek(1) in " xX" and self._peek(2) == "]" and self._peek(3) in (" ", "\t"):
            self._drop(3)
            return True
        if char == "|":
            self._table = True
            self._line_start = False
            self._drop(1)
            return True
        return False

    def _opens_fence(self, mark: str) -> bool:
        length = end = self._run_length(mark)
        while (char := self._peek(end)) and char not in LINE_BREAKS:
            if (char == "`" and mark == "`") or end - length > FENCE_INFO_MAX:
                return False  # code in a line
            end += 1
        self._fence = mark * length
        self._drop(end)
        return True

    def _closes_fence(self, char: str) -> bool:
        if char != self._fence[0]:
            return False
        line = self._line_of(char)
        if line is None or not line.rstrip().startswith(self._fence) or len(set(line.rstrip())) > 1:
            return False
        self._fence = ""
        self._drop(len(line))
        return True

    def _is_rule(self, char: str) -> bool:
        """A line of dashes or the like, or the one under a table's head."""
        line = self._line_of("-:|" if char in "-:|" else char)
        if line is None or line.count("-" if char in ":|" else char) < (1 if char == "|" else 3):
            return False
        self._drop(len(line))
        return True

    def _emoji(self, char: str) -> bool:
        if char in KEYCAPS:
            after = self._peek(1)
            if after == KEYCAP or (after == EMOJI_SELECTOR and self._peek(2) == KEYCAP):
                self._remove(2 if after == KEYCAP else 3)
                return True
            return False
        if char.isascii():
            return False
        if char in EMOJI or (char in EMOJI_ON_REQUEST and self._peek(1) == EMOJI_SELECTOR):
            self._remove(1)
        elif char in SILENT or (char == JOINER and self._removed and not self._space_after):
            self._drop(1)
        else:
            return False
        return True

    def _inline(self, char: str) -> None:
        if char == "`":
            self._backticks()
        elif self._code or self._fence:
            self._put(char)
        elif not self._url and (length := self._emoticon_length()):
            self._remove(length)
        elif char.isalpha() and (letters := LETTERS.match(self._buffer, self._at)):
            self._put(letters.group())
        elif char in "*_~":
            self._emphasis(char)
        elif char == "\\" and self._peek(1) in ESCAPABLE:
            self._put(self._peek(1), 2)
        elif char in "![":
            self._link(char)
        elif char == "<":
            self._angle()
        elif char == "|" and self._table:
            self._space = self._space_after = True
            self._drop(1)
        elif char == ":" and self._before.isalnum() and self._peek(1) == "/" and self._peek(2) == "/":
            self._url = True
            self._put("://")
        else:
            if char in "()":
                self._parentheses = max(0, self._parentheses + (1 if char == "(" else -1))
            self._put(char)

    def _backticks(self) -> None:
        length = self._run_length("`")
        if self._code in (0, length) and not self._fence:
            if not self._code and length == 1 and self._before.isalnum() and self._peek(1).isalnum():
                self._put("`")  # an apostrophe
                return
            self._code = 0 if self._code else length
        self._drop(length)

    def _emoticon_length(self) -> int:
        """Characters of the emoticon that comes next; 0 where it is something else."""
        glued = self._before.isalnum()
        known, beginnings = (GLUED_EMOTICONS, GLUED_PREFIXES) if glued else (EMOTICONS, EMOTICON_PREFIXES)
        length = found = 0
        while (text := self._buffer[self._at : self._at + length] + self._peek(length)) in beginnings:
            length += 1
            if text in known:
                found = length
            if self._peek(length) == "":
                break
        if not found:
            return 0
        mouth = self._buffer[self._at + found - 1]
        while mouth in "()" and found < RUN_MAX and self._peek(found) == mouth:
            found += 1
        after = self._peek(found)
        if after.isalnum() or (after and after in "/\\_"):
            return 0
        if (glued and self._parentheses and mouth == ")") or (self._buffer[self._at] == "<" and self._last.isdigit()):
            return 0
        return found

    def _emphasis(self, char: str) -> None:
        length = self._run_length(char)
        before, after = self._before, self._peek(length)
        closes = bool(self._open[char] and before and not before.isspace()) and not (char == "_" and after.isalnum())
        opens = bool(after) and not after.isspace() and not before.isalnum()
        if char == "*" and self._space and self._last.isdigit() and after.isdigit():
            opens = False  # 3 *4
        if (char == "~" and length != 2) or (char != "*" and self._url) or not (opens or closes):
            self._put(char * length)
            return
        self._open[char] = max(0, self._open[char] - length) if closes else self._open[char] + length
        self._drop(length)

    def _link(self, char: str) -> None:
        start = 1 if char == "!" else 0
        found = self._link_span(start) if self._peek(start) == "[" else None
        if found is None:
            self._put(char)
            return
        close, end = found
        text = self._buffer[self._at + start + 1 : self._at + close]
        self._buffer, self._at = text + self._buffer[self._at + end :], 0

    def _link_span(self, start: int) -> tuple[int, int] | None:
        """Where the text of a link ends and where the link does, from here; None where it is none."""
        at, depth = start, 0
        while True:
            char = self._peek(at)
            if not char or char in LINE_BREAKS or at - start > LINK_TEXT_MAX:
                return None
            depth += (char == "[") - (char == "]")
            if not depth:
                break
            at += 2 if char == "\\" else 1
        close, at, depth = at, at + 1, 0
        if self._peek(at) != "(":
            return None
        quote = ""
        while True:
            char = self._peek(at)
            if not char or char in LINE_BREAKS or at - close > LINK_TARGET_MAX:
                return None
            if quote:
                quote = "" if char == quote else quote
            elif char == " ":
                after = self._peek(at + 1)
                if not after or after not in "\"') ":
                    return None  # words, not a target
                quote = after if after in "\"'" else ""
                at += 1 if quote else 0
            else:
                depth += (char == "(") - (char == ")")
                if not depth:
                    return close, at + 1
            at += 1

    def _angle(self) -> None:
        if self._ahead(BREAKS):
            self._space = self._space_after = True
            self._drop(len(self._ahead(BREAKS)))
        elif self._ahead(tuple(f"<{scheme}" for scheme in SCHEMES)):
            end = 1
            while (char := self._peek(end)) and not char.isspace() and char != ">" and end < LINK_TARGET_MAX:
                end += 1
            if char == ">":
                address = self._buffer[self._at + 1 : self._at + end]
                self._buffer, self._at, self._url = address + self._buffer[self._at + end + 1 :], 0, True
            else:
                self._put("<")
        else:
            self._put("<")

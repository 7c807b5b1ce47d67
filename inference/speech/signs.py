"""Finds emoji and emoticons in a text, and the empty brackets that they would leave."""

from __future__ import annotations

from inference.speech.emoji import (
    EMOJI_ON_REQUEST,
    EMOJI_SELECTOR,
    EMOTICON_PREFIXES,
    EMOTICONS,
    GLUED_EMOTICONS,
    GLUED_PREFIXES,
    JOINER,
    KEYCAP,
    KEYCAPS,
    is_emoji,
    is_silent,
)
from inference.speech.reader import LINE_BREAKS, LOOKAHEAD, Reader
from inference.speech.writer import Writer

_BRACKETS = {"(": ")", "[": "]", "{": "}", "（": "）", "【": "】", "「": "」"}
_LAUGHTER = frozenset({"lol", "lmao", "rofl", "haha", "hahaha", "hehe", "heh", "ha"})


class Signs:
    """Reads past signs that cannot be said.

    Args:
        reader: the text.
        writer: gets a gap for every sign, so that words do not run together.
    """

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer
        self._parentheses = 0  # round brackets open in the text that was said
        self._word = ""  # the last word said

    def end_paragraph(self) -> None:
        """Forget the open brackets."""
        self._parentheses = 0

    def note_word(self, letters: str) -> None:
        """Note letters that were said; a part of a word replaces the part before it."""
        self._word = self._word + letters if self._reader.before.isalpha() else letters

    def note_bracket(self, char: str) -> None:
        """Note a round bracket that was said."""
        self._parentheses = max(0, self._parentheses + (1 if char == "(" else -1))

    def read_emoji(self, char: str) -> bool:
        """Read past an emoji, a part of one, or an invisible character; return whether there was one."""
        reader, writer = self._reader, self._writer
        if char in KEYCAPS:
            after = reader.peek(1)
            if after != KEYCAP and not (after == EMOJI_SELECTOR and reader.peek(2) == KEYCAP):
                return False
            if char.isdecimal():  # a keycap is read as its digit
                writer.say(char)
            else:
                writer.gap()
            reader.drop(2 if after == KEYCAP else 3)
            return True
        if char.isascii():
            return False
        if self._emoji_length(0):
            writer.gap()
        elif not is_silent(char) and not (char == JOINER and writer.just_removed):
            return False
        reader.drop(1)
        return True

    def _emoji_length(self, at: int) -> int:
        char = self._reader.peek(at)
        if not char or char.isascii():
            return 0
        if char in EMOJI_ON_REQUEST:
            return 2 if self._reader.peek(at + 1) == EMOJI_SELECTOR else 0
        return int(is_emoji(char))

    def read_emoticon(self) -> bool:
        """Read past an emoticon; return whether there was one."""
        length = self.emoticon_length()
        if length:
            self._writer.gap()
            self._reader.drop(length)
        return bool(length)

    def emoticon_length(self, at: int = 0, closing: str = "") -> int:
        """Return the length of the emoticon at ``at``; 0 where there is other text.

        Args:
            at: places ahead.
            closing: the bracket that is not a part of the emoticon: the one that encloses it.
        """
        reader, writer = self._reader, self._writer
        before = reader.peek(at - 1) if at else reader.before
        glued = before.isalnum()
        known, beginnings = (GLUED_EMOTICONS, GLUED_PREFIXES) if glued else (EMOTICONS, EMOTICON_PREFIXES)
        text, found = "", 0
        while (char := reader.peek(at + len(text))) and text + char in beginnings:
            text += char
            if text in known:
                found = len(text)
        if not found:
            return 0
        text = text[:found]
        mouth = text[-1]
        while mouth in "()" and mouth != closing and found < LOOKAHEAD and reader.peek(at + found) == mouth:
            found += 1
        after = reader.peek(at + found)
        if after.isalnum() or (after and after in "/\\_"):
            return 0
        if glued and self._parentheses and mouth == ")":
            return 0
        if mouth == "3" and (writer.last.isdigit() or (text == "<3" and self._word_follows(at + found))):
            return 0  # 4 :3, fewer than <3 apples
        return 0 if text == "XD" and not self._is_laughter(at + found) else found

    def _word_follows(self, at: int) -> bool:
        return self._reader.peek(at) == " " and self._reader.peek(at + 1).isalnum()

    def _is_laughter(self, at: int) -> bool:
        """Return whether ``XD`` is an emoticon and no name: it laughs behind a laugh or at the end of a clause."""
        if self._word.lower() in _LAUGHTER or not self._writer.last.isalnum():
            return True
        return not self._word[:1].isupper() and not self._word_follows(at)

    def read_emptied_brackets(self, char: str) -> bool:
        """Read past brackets with nothing but emoji and emoticons in them; return whether there were any."""
        closing = _BRACKETS.get(char)
        if closing is None:
            return False
        at, signs = 1, 0
        while at < LOOKAHEAD:
            found = self._reader.peek(at)
            if not found or found in LINE_BREAKS:
                return False
            if found == closing:
                if not signs:
                    return False
                self._writer.gap()
                self._reader.drop(at + 1)
                return True
            length = self._emoji_length(at) or self.emoticon_length(at, closing)
            if not length and not (found.isspace() or is_silent(found) or (signs and found == JOINER)):
                return False
            signs += bool(length)
            at += length or 1
        return False

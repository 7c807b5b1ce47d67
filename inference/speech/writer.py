"""The text for a voice as it is written: white space folded, gaps closed, blocks ended with a full stop."""

from __future__ import annotations

import regex

from inference.speech.scripts import full_stop, is_spaceless

# No blank is put before these.
CLOSING_PUNCTUATION = frozenset(".,!?;:)]}…。，！？；：、）」』")
_OPENING = frozenset("([{（「『【")
# Closing quotes and brackets: the punctuation before them ends the sentence.
_CLOSERS = regex.compile(r"[\p{Pe}\p{Pf}\"'\u201c]")
# A voice pauses at these by itself: terminal punctuation of every script, dashes, the ellipsis.
_PAUSES = regex.compile(r"[\p{Terminal_Punctuation}\p{Pd}…]")


class Writer:
    """What was said, and what stands between that and what is said next."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self.last = ""  # last character said
        self.space = False  # white space was read since
        self._removed = False  # an emoji or another unspoken part was read since
        self._space_after = False  # white space was read since that
        self._paused = True  # the text said so far ends with punctuation, closing quotes and brackets apart
        self._letter = ""  # last letter or digit said in this block; empty where there is none

    def take(self) -> str:
        """Return the text that was said since the last call."""
        said, self._out = "".join(self._out), []
        return said

    def say(self, text: str) -> None:
        """Say text, with one blank before it where white space was read."""
        if self.last and self._needs_space(text[0]):
            self._out.append(" ")
        self._out.append(text)
        self.last = text[-1]
        self.space = self._removed = self._space_after = False
        if self.last.isalnum():
            self._letter, self._paused = self.last, False
        elif not _CLOSERS.match(self.last):
            self._paused = _PAUSES.match(self.last) is not None

    def say_tag(self, tag: str) -> None:
        """Pass a tag of another language (SSML) on: it has no sound of its own."""
        letter, paused = self._letter, self._paused
        self.say(tag)
        self._letter, self._paused = letter, paused

    def blank(self) -> None:
        """Note white space."""
        self.space = self._space_after = True

    def gap(self) -> None:
        """Note a part that is not said. Words keep a blank there, and none is left before a full stop."""
        self._removed, self._space_after = True, False

    @property
    def just_removed(self) -> bool:
        """Whether a part that is not said was the last thing read."""
        return self._removed and not self._space_after

    def end_block(self) -> None:
        """End a heading, a list item or a paragraph: where it ends without punctuation, with a full stop."""
        if self._letter and not self._paused:
            stop = full_stop(self._letter)
            self._out.append(stop)
            self.last, self._paused = stop, True
            self._removed = False
        self._letter = ""
        self.blank()

    def _needs_space(self, first: str) -> bool:
        if not self._removed:
            return self.space
        if first in CLOSING_PUNCTUATION or self.last in _OPENING:
            return False
        touching = (self.last.isalnum() or self.last in CLOSING_PUNCTUATION) and not is_spaceless(self.last)
        return self._space_after or (first.isalnum() and (self.space or touching))

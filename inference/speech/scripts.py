"""Scripts of Unicode that the speech style treats in their own way."""

from __future__ import annotations

import regex

# Written without blanks between words, with their punctuation.
_SPACELESS = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\u3000-\u303f\uff00-\uff5e]"
)
_IDEOGRAPHIC_STOP = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
_DANDA = regex.compile(r"[\p{Devanagari}\p{Bengali}\p{Oriya}\p{Gurmukhi}]")


def is_spaceless(char: str) -> bool:
    """Return whether marks next to a character may stand inside of a run of letters.

    True for scripts without blanks between words, for Hangul (particles follow a word directly), and for their
    punctuation.
    """
    return not char.isascii() and _SPACELESS.match(char) is not None


def full_stop(letter: str) -> str:
    """Return the full stop of the script that a letter belongs to."""
    if letter.isascii():
        return "."
    return "。" if _IDEOGRAPHIC_STOP.match(letter) else "।" if _DANDA.match(letter) else "."

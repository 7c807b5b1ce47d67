"""Text as the matchers compare it: a sequence of units, the same for texts that a reader cannot tell apart.

A unit is one code point of the canonical decomposition (NFD, UAX #15) with the forms of ``personas.text_forms`` made
plain, and with its case folded where a phrase is not case-sensitive (Unicode D145). One character gives one unit as a
rule, several (``ß`` gives ``ss``, ``é`` gives ``e`` and U+0301), or none (a zero-width space).

A unit that continues the letter before it (a combining mark, a Hangul vowel or final consonant) is an *extender*.
Letter and extenders together are a *cluster*; no match begins or ends inside one, so ``cafe`` is not found in ``café``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import regex

from personas.text_forms import BLANKS as BLANK_CHARACTERS
from personas.text_forms import FORMS, INVISIBLE, QUOTE_FORMS

NEWLINES = frozenset("\n\r\u2028\u2029")
BLANKS = frozenset(" \t" + BLANK_CHARACTERS)
INVISIBLES = frozenset(INVISIBLE)
JOINER = "\u200d"
# U+0345 is the one combining mark that case folding turns into a letter. Left as it is, it keeps its place in the
# canonical order of marks.
_IOTA_SUBSCRIPT = "\u0345"
# Emoji properties of the Unicode version that the `regex` package holds (its release notes name the version).
_EMOJI = regex.compile(r"[\p{Extended_Pictographic}\p{Emoji_Modifier}\p{Regional_Indicator}]")
_EMOJI_EXTENSION = regex.compile(r"[\p{M}\p{Emoji_Modifier}\p{Variation_Selector}\u200d\U000e0020-\U000e007f]")


class UnitTable(dict[int, str]):
    """The units of characters, by code point, for ``str.translate``. Entries are made when they are first needed.

    Args:
        folds_case: fold the case of every character.

    Attributes:
        uneven: the characters met so far that have no unit, or more than one.
        extending: the characters met so far with an extender among their units.
    """

    def __init__(self, *, folds_case: bool) -> None:
        super().__init__()
        self.folds_case = folds_case
        self.uneven: set[str] = set()
        self.extending: set[str] = set()

    def __missing__(self, code: int) -> str:
        char = chr(code)
        units = unicodedata.normalize("NFD", char)
        if self.folds_case:
            units = "".join(unit if unit == _IOTA_SUBSCRIPT else unit.casefold() for unit in units)
            units = unicodedata.normalize("NFD", units)
        units = self[code] = units.translate(FORMS)
        if len(units) != 1:
            self.uneven.add(char)
        if any(map(is_extender, units)):
            self.extending.add(char)
        return units

    def units(self, text: str) -> str:
        """Return the units of a text in the order of its characters."""
        if text.isascii():
            return text.lower() if self.folds_case else text
        return text.translate(self)


EXACT = UnitTable(folds_case=False)
FOLDED = UnitTable(folds_case=True)


def canonical(units: str) -> str:
    """Return units with each run of combining marks in canonical order."""
    return units if units.isascii() else unicodedata.normalize("NFD", units)


@lru_cache(maxsize=4096)
def is_extender(char: str) -> bool:
    """Return whether a character or unit continues the letter before it.

    Extenders are the combining marks (general category M; the invisible ones have no unit) and the conjoining Hangul
    vowels and final consonants.
    """
    return unicodedata.category(char)[0] == "M" or "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7fb"


@lru_cache(maxsize=4096)
def mark_order(unit: str) -> int:
    """Return the canonical combining class: 0 for a unit whose place in the text is fixed."""
    return unicodedata.combining(unit)


@lru_cache(maxsize=4096)
def is_emoji(char: str) -> bool:
    """Return whether a character shows as a picture, alone or as part of a flag."""
    return not char.isascii() and _EMOJI.match(char) is not None


def extends_emoji(before: str, char: str) -> bool:
    """Return whether ``char`` belongs to the emoji that ends with ``before`` (an emoji sequence of UTS #51).

    Variation selectors, skin tones, tags, marks and the joiner do; after a joiner another picture does.
    """
    if char.isascii():
        return False
    return _EMOJI_EXTENSION.match(char) is not None or (before == JOINER and is_emoji(char))


def is_regional(char: str) -> bool:
    """Return whether a character is half of a flag (a regional indicator)."""
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def is_word(chars: Sequence[str], index: int) -> bool:
    """Return whether ``chars[index]`` is part of a word: alphanumeric, ``_``, or a mark on such a character.

    Invisible characters count as the character before them; before the start of the text there is no word.
    """
    while index >= 0:
        char = chars[index]
        if char.isalnum():
            return ord(char) not in QUOTE_FORMS
        if char == "_":
            return True
        if char.isascii() or not (char in INVISIBLES or unicodedata.category(char)[0] == "M"):
            return False
        index -= 1
    return False


def starts_line(chars: Sequence[str], index: int) -> bool:
    """Return whether only blanks lie between ``index`` and the line break, or the start of the text, before it."""
    index -= 1
    while index >= 0 and (chars[index] in BLANKS or chars[index] in INVISIBLES):
        index -= 1
    return index < 0 or chars[index] in NEWLINES


def starts_text(chars: Sequence[str], index: int) -> bool:
    """Return whether only white space and invisible characters lie before ``index``."""
    return all(char.isspace() or char in INVISIBLES for char in chars[:index])

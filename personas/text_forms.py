"""Forms of text that a reader cannot tell apart, as tables and functions.

One definition for everything that compares phrases: the phrase guard (``inference/phrases``), the duplicate check of
phrase lists, and imports. Plain Python, no Django.

- Quotes: every typographic apostrophe and double quote equals the straight one. A closed table: guillemets, backticks
  and the ellipsis are characters of their own.
- Blanks: every space separator of Unicode (category Zs: no-break, narrow, ideographic …) equals U+0020. Tabs and line
  breaks stay.
- Hyphens: U+2010, the no-break U+2011 and the compatibility forms U+FE63 and U+FF0D equal ``-``. Dashes (U+2012 to
  U+2015) and the minus sign U+2212 stay.
- Invisible characters are removed: soft hyphen, zero-width characters, direction marks, variation selectors and tags
  (Unicode's Default_Ignorable_Code_Point without the Hangul fillers, which are as wide as a letter).
- Composed and decomposed letters are equal (Unicode normalisation form NFC, UAX #15).
"""

from __future__ import annotations

import unicodedata

APOSTROPHES = "\u2018\u2019\u201a\u201b\u2032\u00b4\u02bc\uff07"
DOUBLE_QUOTES = "\u201c\u201d\u201e\u201f\u2033\uff02"
BLANKS = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
HYPHENS = "\u2010\u2011\ufe63\uff0d"
_INVISIBLE_RANGES = (
    (0x00AD, 0x00AD),  # soft hyphen
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x061C, 0x061C),  # Arabic letter mark
    (0x17B4, 0x17B5),  # Khmer inherent vowels
    (0x180B, 0x180F),  # Mongolian variation selectors and vowel separator
    (0x200B, 0x200F),  # zero-width space, non-joiner, joiner; direction marks
    (0x202A, 0x202E),  # direction embeddings and overrides
    (0x2060, 0x206F),  # word joiner, invisible operators, direction isolates, deprecated format characters
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),  # zero-width no-break space (byte order mark)
    (0x1BCA0, 0x1BCA3),  # shorthand format controls
    (0x1D173, 0x1D17A),  # musical format controls
    (0xE0000, 0xE007F),  # tags
    (0xE0100, 0xE01EF),  # variation selectors supplement
)
INVISIBLE = "".join(chr(code) for first, last in _INVISIBLE_RANGES for code in range(first, last + 1))

QUOTE_FORMS: dict[int, str] = {ord(char): "'" for char in APOSTROPHES} | {ord(char): '"' for char in DOUBLE_QUOTES}
BLANK_FORMS: dict[int, str] = {ord(char): " " for char in BLANKS}
HYPHEN_FORMS: dict[int, str] = {ord(char): "-" for char in HYPHENS}
INVISIBLE_FORMS: dict[int, str] = {ord(char): "" for char in INVISIBLE}
# For str.translate: the plain form of every character in the tables above; "" for an invisible one.
FORMS: dict[int, str] = QUOTE_FORMS | BLANK_FORMS | HYPHEN_FORMS | INVISIBLE_FORMS


def is_text(text: str) -> bool:
    """Return whether a database and a socket can carry the text: no NUL, no lone surrogate."""
    return not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text)


def fold_form(text: str) -> str:
    """Return the plain form of a text: two texts that read the same have the same one. Case is kept.

    Idempotent: ``fold_form(fold_form(text)) == fold_form(text)``. The result can be empty.
    """
    if text.isascii():
        return text
    # Invisible characters go first: between a letter and its accent they would keep the two apart.
    composed = unicodedata.normalize("NFC", text.translate(INVISIBLE_FORMS))
    return composed if composed.isascii() else composed.translate(FORMS)


def fold_case(text: str) -> str:
    """Return the plain form of a text with its case folded (canonical caseless match, Unicode D145). Idempotent."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFD", fold_form(text)).casefold()
    return fold_form(folded)

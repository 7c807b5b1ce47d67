"""Emoji and emoticons: signs that a voice cannot say.

Emoji are known by the properties of Unicode's emoji data (UTS #51) in the version that the `regex` package holds:
Unicode 18.0 for the version pinned in the requirements. Emoticons are a closed list.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import regex

# Ordinary text, unless the emoji variation selector follows.
EMOJI_ON_REQUEST = frozenset("©®‼⁉™ℹ↔↕↖↗↘↙↩↪Ⓜ▪▫▶◀⤴⤵〰〽㊗㊙")
# All of U+1F000 to U+1FAFF: characters that are added there will be emoji too.
_EMOJI = regex.compile(r"\p{Emoji}|[\U0001f000-\U0001faff]")
KEYCAPS = frozenset("0123456789#*")
EMOJI_SELECTOR = "\ufe0f"
KEYCAP = "\u20e3"
JOINER = "\u200d"
# Parts of emoji sequences (selectors, the keycap, tags), direction marks, and characters of no width. The joiners are
# not among them: Indic and Persian words need them.
_SILENT = regex.compile(
    r"[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufe0e\ufe0f\ufeff\u20e3\U000e0000-\U000e007f]"
)

_EYES, _NOSES, _MOUTHS = ":;=", ("", "-"), ")(DPpOo/3"
_FACES = {eyes + nose + mouth for eyes in _EYES for nose in _NOSES for mouth in _MOUTHS} - {
    "=/", ";/", ";3", "=3", "=O",
}  # fmt: skip
_OTHERS = [
    ":'(", ":')", ":'-(", ":'-)", ">:(", ">:)", ":>", "<3", "</3", "^^", "^_^", "^-^", "^.^", "-_-", ">_<", ">.<",
    "T_T", "o_O", "O_o", "o_o", "O_O", "u_u", "U_U", "xD", "XD", "\\o/", "¯\\_(ツ)_/¯",
]  # fmt: skip
EMOTICONS = frozenset(_FACES.union(_OTHERS))
# Emoticons that are meant even where they touch the word before them.
GLUED_EMOTICONS = frozenset({":)", ";)", ":-)", ";-)", ":-(", ":-D", ":-P"})


def prefixes(texts: Iterable[str]) -> frozenset[str]:
    """Return every beginning of the texts, the texts themselves included."""
    return frozenset(text[:length] for text in texts for length in range(1, len(text) + 1))


EMOTICON_PREFIXES, GLUED_PREFIXES = prefixes(EMOTICONS), prefixes(GLUED_EMOTICONS)


@lru_cache(maxsize=4096)
def is_emoji(char: str) -> bool:
    """Return whether a character shows as an emoji by itself."""
    return not char.isascii() and char not in EMOJI_ON_REQUEST and _EMOJI.match(char) is not None


@lru_cache(maxsize=4096)
def is_silent(char: str) -> bool:
    """Return whether a character has no sound and no width wherever it stands."""
    return not char.isascii() and _SILENT.match(char) is not None

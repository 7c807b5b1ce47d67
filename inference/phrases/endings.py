"""Where a complete match ends, and whether it counts: the characters behind it decide."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from inference.phrases.automaton import Ending
from inference.phrases.cursor import Match
from inference.phrases.units import INVISIBLES, extends_emoji, is_extender, is_regional, is_word


class Verdict(Enum):
    """What the characters behind a match say."""

    SETTLED = "the match counts"
    PENDING = "the next character decides"
    REFUTED = "a part of a word follows a whole-word phrase"
    DROPPED = "an extender follows: the last letter is another one"


def judge(match: Match, chars: Sequence[str]) -> tuple[Verdict, Match]:
    """Return whether a match counts, and the match with the rest of the emoji sequence that it ends with.

    Args:
        match: a complete match.
        chars: the text read so far.
    """
    pattern, index = match.pattern, match.end
    if pattern.ending is Ending.SETTLED and not pattern.whole_word:
        return Verdict.SETTLED, match
    while index < len(chars) and not chars[index].isascii():
        if pattern.ending is Ending.EMOJI and _extends(match, chars, index):
            match = match._replace(end=index + 1)
        elif chars[index] not in INVISIBLES:
            break
        index += 1
    if index == len(chars):
        return Verdict.PENDING, match
    if pattern.ending is Ending.CLUSTER and is_extender(chars[index]):
        return Verdict.DROPPED, match
    if pattern.whole_word and is_word(chars, index):
        return Verdict.REFUTED, match
    return Verdict.SETTLED, match


def ends_at(match: Match, chars: Sequence[str], index: int) -> bool:
    """Return whether a match ends at ``index``, or with only invisible characters between."""
    return match.end <= index and all(char in INVISIBLES for char in chars[match.end : index])


def is_inside_letter(chars: Sequence[str], index: int) -> bool:
    """Return whether ``chars[index]`` belongs to the letter or the picture before it, or cannot be seen."""
    char = chars[index]
    if char.isascii():
        return False
    return char in INVISIBLES or is_extender(char) or (index > 0 and extends_emoji(chars[index - 1], char))


def _extends(match: Match, chars: Sequence[str], index: int) -> bool:
    """Return whether ``chars[index]`` belongs to the emoji that a match ends with."""
    if not is_regional(chars[index]):
        return extends_emoji(chars[index - 1], chars[index])
    first = index
    while first > match.start and is_regional(chars[first - 1]):
        first -= 1
    return (index - first) % 2 == 1  # the second half of a flag

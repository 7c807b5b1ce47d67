"""The compiled form of a phrase list: Aho-Corasick over case-folded text. Built off the hot path, shared, never edited.

The goto and fail tables are our own plain dicts and lists: the guard must know at every character how long the longest
live partial match is, and the libraries (pyahocorasick among them) only report complete matches while streaming.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from personas.snapshot import PhraseRule

# Everything that is typed or printed for ' and ", in every rule, case-sensitive ones too. A closed table: guillemets,
# backticks and the ellipsis are other characters, not other shapes of these.
APOSTROPHES = "\u2018\u2019\u201a\u201b\u2032\u00b4\u02bc\uff07"
DOUBLE_QUOTES = "\u201c\u201d\u201e\u201f\u2033\uff02"
QUOTES = {ord(char): "'" for char in APOSTROPHES} | {ord(char): '"' for char in DOUBLE_QUOTES}
NEWLINES = "\n\r\u2028\u2029"
BLANKS = " \t\u00a0"

# What must hold where a pattern starts, as bits.
ANYWHERE, WORD_START, LINE_START = 0, 1, 2


def exact(text: str) -> str:
    """Text as case-sensitive patterns see it: quotes made straight, one unit per character."""
    return text if text.isascii() else text.translate(QUOTES)


def fold(text: str) -> str:
    """Text as other patterns see it: case folded per code point (one to three units each), quotes made straight."""
    return text.lower() if text.isascii() else text.casefold().translate(QUOTES)


def is_word(chars: Sequence[str], index: int) -> bool:
    """True where ``chars[index]`` is part of a word: alphanumeric, ``_``, or a combining mark on such a character."""
    while index >= 0:
        char = chars[index]
        if char.isalnum():
            return ord(char) not in QUOTES
        if char == "_":
            return True
        if not unicodedata.category(char).startswith("M"):
            return False
        index -= 1
    return False


def starts_line(chars: Sequence[str], index: int) -> bool:
    """True where only blanks lie between ``index`` and the newline (or the start of the reply) before it."""
    index -= 1
    while index >= 0 and chars[index] in BLANKS:
        index -= 1
    return index < 0 or chars[index] in NEWLINES


def may_start(conditions: int, chars: Sequence[str], index: int) -> bool:
    """True where one of these conditions (none at all: always) holds for a match that starts at ``index``."""
    return (
        not conditions
        or bool(conditions & WORD_START and not is_word(chars, index - 1))
        or bool(conditions & LINE_START and starts_line(chars, index))
    )


@dataclass(frozen=True, slots=True)
class Pattern:
    """One thing to find. ``order`` settles ties: stops, then plain phrases, then whole-word ones, then list order."""

    text: str
    start: int
    stop: bool
    order: tuple[bool, bool, int]

    @property
    def whole_word(self) -> bool:
        """True where it may not end inside a word either."""
        return self.start == WORD_START


class Matcher:
    """Goto, fail and output tables over one kind of unit (folded or exact). Node 0 is the root."""

    __slots__ = ("conditions", "depth", "fail", "folds", "goto", "link", "patterns", "reach", "starts")

    def __init__(self, folds: bool) -> None:
        self.folds = folds
        self.goto: list[dict[str, int]] = [{}]
        self.depth = [0]
        self.fail: list[int] = []
        self.patterns: list[tuple[Pattern, ...]] = [()]
        self.link: list[int] = []  # the longest proper suffix that ends a pattern
        self.conditions = [0]  # one of these must hold for a pattern from the node on; 0 when one may start anywhere
        self.reach = 0  # units of the longest pattern
        self.starts: frozenset[str] = frozenset()  # at the root, text without these needs no look

    def add(self, units: str, pattern: Pattern) -> None:
        node = 0
        for unit in units:
            child = self.goto[node].get(unit)
            if child is None:
                child = self.goto[node][unit] = len(self.goto)
                self.goto.append({})
                self.depth.append(self.depth[node] + 1)
                self.patterns.append(())
                self.conditions.append(pattern.start)
            elif self.conditions[child] != ANYWHERE:
                self.conditions[child] = pattern.start and self.conditions[child] | pattern.start
            node = child
        self.patterns[node] += (pattern,)
        self.reach = max(self.reach, len(units))

    def link_up(self) -> None:
        """Compute the fail and output links, breadth first, once every pattern is in."""
        goto, fail = self.goto, [0] * len(self.goto)
        self.link = link = [0] * len(goto)
        queue = deque(goto[0].values())
        while queue:
            node = queue.popleft()
            for unit, child in goto[node].items():
                suffix = fail[node]
                while suffix and unit not in goto[suffix]:
                    suffix = fail[suffix]
                fail[child] = suffix = goto[suffix].get(unit, 0)
                link[child] = suffix if self.patterns[suffix] else link[suffix]
                queue.append(child)
        self.fail = fail
        self.starts = frozenset(goto[0])


@dataclass(frozen=True, slots=True)
class PhraseAutomaton:
    """Everything the guard looks for: banned phrases, speaker labels and text stops."""

    matchers: tuple[Matcher, ...]
    reach: int  # no match is longer, in characters
    whole_words: bool  # True where some rule is whole-word

    @classmethod
    def build(
        cls, rules: Iterable[PhraseRule], *, speaker_labels: Sequence[str] = (), stops: Sequence[str] = ()
    ) -> PhraseAutomaton:
        """Compile the banned ones among ``rules`` (the others are token biases, not ours).

        ``speaker_labels`` (``"User"``) stop the reply where ``User:`` starts a line, in any letter case; ``stops`` do
        wherever they occur, in their own letter case. Empty texts are left out.
        """
        folded, cased = Matcher(folds=True), Matcher(folds=False)
        seen: set[tuple[str, bool, int, bool]] = set()

        def add(text: str, case_sensitive: bool, start: int, stop: bool) -> None:
            units = exact(text) if case_sensitive else fold(text)
            key = (units, case_sensitive, start, stop)
            if units and key not in seen:
                order = (not stop, start == WORD_START, len(seen))
                (cased if case_sensitive else folded).add(units, Pattern(text, start, stop, order))
                seen.add(key)

        for label in speaker_labels:
            if label:
                add(f"{label}:", False, LINE_START, True)
        for text in stops:
            add(text, True, ANYWHERE, True)
        for rule in rules:
            if rule.banned:
                add(rule.text, rule.case_sensitive, WORD_START if rule.whole_word else ANYWHERE, False)

        matchers = tuple(matcher for matcher in (folded, cased) if matcher.reach)
        for matcher in matchers:
            matcher.link_up()
        reach = max((matcher.reach for matcher in matchers), default=0)
        return cls(matchers, reach, any(start == WORD_START for _, _, start, _ in seen))

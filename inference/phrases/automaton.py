"""Phrase lists compiled into Aho-Corasick automata. Built off the serving loop, shared by all sessions.

Source: A. V. Aho and M. J. Corasick, "Efficient string matching: an aid to bibliographic search", Communications of the
ACM 18(6), 1975. Two things differ from the paper:

- The guard must know after every character how long the longest live partial match is, and where a match may start.
  Libraries (pyahocorasick and ahocorasick-rs among them) report complete matches only.
- A failure link is computed when it is first followed. Building is then one pass over the phrases, and a list of
  100,000 phrases, of which a server meets a small part, costs little time and memory.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from inference.phrases.units import (
    EXACT,
    FOLDED,
    UnitTable,
    canonical,
    is_emoji,
    is_extender,
    is_regional,
)
from personas.snapshot import PhraseRule

# Conditions on the place where a match starts, as bits. ANYWHERE is no condition.
ANYWHERE, WORD_START, LINE_START, TEXT_START, LATER_LINE_START, CLUSTER_START, FLAG_START = 0, 1, 2, 4, 8, 16, 32


# Units that a match takes along of an emoji sequence, at most: the longest of UTS #51 (a family of four) has seven.
EMOJI_SEQUENCE_MAX = 16
PHRASES_PER_PAUSE = 64  # about one millisecond of work


class Kind(IntEnum):
    """What a match does to the reply. Where two matches cover the same text, the lower kind counts."""

    LABEL = 0  # the label of the speaker at the start of a reply: removed, the reply goes on
    STOP = 1  # the reply ends before it
    PHRASE = 2  # a banned phrase
    WORD = 3  # a banned phrase that must not begin or end inside a word


class Ending(IntEnum):
    """What decides whether a complete match counts."""

    SETTLED = 0  # nothing: the match counts at once
    CLUSTER = 1  # the next visible character: an extender would make another letter of the last one
    EMOJI = 2  # the match takes the rest of an emoji sequence along


@dataclass(frozen=True, slots=True)
class Pattern:
    """One text to find.

    Args:
        text: the text as listed.
        kind: what a match does.
        number: place in the list; of two equal matches of one kind the lower number counts.
        start: conditions on the start of a match; one of these bits must hold.
        ending: what decides about a complete match.
    """

    text: str
    kind: Kind
    number: int
    start: int = ANYWHERE
    ending: Ending = Ending.SETTLED

    @property
    def order(self) -> tuple[int, int]:
        """Sort key among matches of the same text."""
        return self.kind, self.number

    @property
    def whole_word(self) -> bool:
        """Whether the character behind a match must not be part of a word."""
        return self.kind is Kind.WORD


class Matcher:
    """Goto, failure and output functions over one kind of units. Node 0 is the root.

    A node is *visited* when a text reaches it first; its entry in ``goto`` is made then, and its failure and output
    links are computed, along with those of the nodes that the failure links lead to. Before that, a node whose only
    child is the next node has no entry of its own: most nodes of a long list stand in such a chain.

    Args:
        table: the units that texts are compared by.
        line_start: True where every pattern starts at the start of a line.

    Attributes:
        spared: the ASCII letters that start a match and that stay where the match starts inside a word
            (``inference.phrases.cursor.Cursor.begin``). Empty until :meth:`spare_letters`.
    """

    __slots__ = (
        "_marked", "_parents", "_unit", "conditions", "depth", "failure", "flagged", "goto", "line_start", "link",
        "patterns", "reach", "spared", "starts", "table",
    )  # fmt: skip

    def __init__(self, table: UnitTable, *, line_start: bool = False) -> None:
        self.table = table
        self.line_start = line_start
        self.spared: frozenset[str] = frozenset()
        self.goto: list[dict[str, int]] = [{}]
        self.failure = array("i", [0])  # node of the longest proper suffix; -1 until the node is visited
        self.link = array("i", [0])  # node of the longest proper suffix that completes a pattern; 0: none
        self.patterns: dict[int, tuple[Pattern, ...]] = {}  # complete at the node
        self.depth = array("H", [0])  # units from the root
        self.conditions = array("B", [ANYWHERE])  # those of the patterns from the node on; 0 where one has none
        # 1 where an arrival needs a look: not visited, with conditions, or with a complete pattern.
        self.flagged = bytearray(1)
        self.starts: frozenset[str] = frozenset()  # units that leave the root
        self.reach = 0  # units that a match may be long
        self._unit: list[str] = [""]  # the unit that leads to the node
        self._parents: dict[int, int] = {}  # where the parent is not the node before
        self._marked: set[str] = set()  # first units that an extender follows in some pattern

    def add(self, units: str, pattern: Pattern) -> None:
        """Add one pattern. Not after a text was read."""
        node, conditions = 0, self.conditions
        for index, unit in enumerate(units):
            child = self._child(node, unit)
            if child is None:
                node = self._grow(node, units[index:], pattern.start)
                break
            node = child
            conditions[node] = pattern.start and conditions[node] and conditions[node] | pattern.start
        self.patterns[node] = (*self.patterns.get(node, ()), pattern)
        self.reach = max(self.reach, len(units) + (EMOJI_SEQUENCE_MAX if pattern.ending is Ending.EMOJI else 0))
        if units[0] not in self.starts:
            self.starts |= {units[0]}
        if is_extender(units[1:2] or "a"):
            self._marked.add(units[0])

    def spare_letters(self) -> None:
        """Set :attr:`spared`. Call after the last pattern.

        A letter that some pattern combines with a mark is not spared: a cut behind it would leave a bare letter.
        """
        letters = {unit for unit in self.starts - self._marked if unit.isascii() and unit.isalpha()}
        self.spared = frozenset(letters | {letter.upper() for letter in letters if self.table.folds_case})

    def _grow(self, node: int, tail: str, start: int) -> int:
        """Add a chain of nodes below ``node``; return the last one."""
        first, count = len(self.goto), len(tail)
        moves = self.goto[node]
        if moves is _CHAIN:  # the node gets a second child
            moves = self.goto[node] = {self._unit[node + 1]: node + 1}
        if moves is _LEAF and first == node + 1:
            self.goto[node] = _CHAIN
        else:
            if moves is _LEAF:
                moves = self.goto[node] = {}
            moves[tail[0]] = first
            self._parents[first] = node
        depth = self.depth[node]
        self.goto += [_CHAIN] * (count - 1)
        self.goto.append(_LEAF)
        self._unit += tail
        self.depth.extend(range(depth + 1, depth + 1 + count))
        self.conditions.extend([start] * count)
        self.failure.extend([-1] * count)
        self.link.extend([0] * count)
        self.flagged += b"\1" * count
        return first + count - 1

    def _child(self, node: int, unit: str) -> int | None:
        moves = self.goto[node]
        if moves is _CHAIN:
            return node + 1 if self._unit[node + 1] == unit else None
        return moves.get(unit)

    def step(self, node: int, unit: str) -> int:
        """Return the node for the longest suffix of the text after one more unit, visited; ``node`` is visited."""
        while (child := self.goto[node].get(unit)) is None and node:
            node = self.failure[node]
        if child is not None and self.failure[child] < 0:
            self.visit(child)
        return child or 0

    def visit(self, node: int) -> None:
        """Prepare a node, and its ancestors where needed, for the first arrival."""
        path: list[int] = []
        while self.failure[node] < 0:
            path.append(node)
            node = self._parents.get(node, node - 1)
        for child in reversed(path):
            suffix = self.step(self.failure[node], self._unit[child]) if node else 0
            self.failure[child] = suffix
            self.link[child] = suffix if suffix in self.patterns else self.link[suffix]
            if self.goto[child] is _CHAIN:
                self.goto[child] = {self._unit[child + 1]: child + 1}
            self.flagged[child] = bool(self.conditions[child] or self.link[child] or child in self.patterns)
            node = child


# Shared by the nodes they stand for, never changed.
_CHAIN: dict[str, int] = {}  # an unvisited node whose only child is the next node
_LEAF: dict[str, int] = {}  # a node without children


@dataclass(frozen=True, slots=True)
class PhraseAutomaton:
    """The banned phrases of one list.

    Args:
        matchers: one for the phrases in any letter case and one for the case-sensitive ones, where there are any.
        whole_words: True where some phrase is whole-word.
    """

    matchers: tuple[Matcher, ...]
    whole_words: bool = False

    @classmethod
    def build(cls, rules: Iterable[PhraseRule], pause: Callable[[], None] | None = None) -> PhraseAutomaton:
        """Compile the banned rules among ``rules``; the others are token biases. Texts without units are left out.

        Args:
            rules: the list.
            pause: called after every ``PHRASES_PER_PAUSE`` phrases, to let other threads run; None: no pause.
        """
        folded, exact = Matcher(FOLDED), Matcher(EXACT)
        seen: set[tuple[str, bool, bool]] = set()
        whole_words = False
        for number, rule in enumerate(rules, 1):
            if pause is not None and number % PHRASES_PER_PAUSE == 0:
                pause()
            matcher = exact if rule.case_sensitive else folded
            units = canonical(matcher.table.units(rule.text))
            key = (units, rule.case_sensitive, rule.whole_word)
            if rule.banned and units and key not in seen:
                kind = Kind.WORD if rule.whole_word else Kind.PHRASE
                matcher.add(units, Pattern(rule.text, kind, len(seen), _start(units, rule), _ending(units)))
                whole_words = whole_words or rule.whole_word
                seen.add(key)
        for matcher in (folded, exact):
            matcher.spare_letters()
        return cls(tuple(matcher for matcher in (folded, exact) if matcher.reach), whole_words)


def _start(units: str, rule: PhraseRule) -> int:
    if is_extender(units[0]):
        return CLUSTER_START  # no word stands before the start of a cluster
    if rule.whole_word:
        return WORD_START
    return FLAG_START if is_regional(units[0]) else ANYWHERE


def _ending(units: str) -> Ending:
    last = units[-1]
    if is_emoji(last):
        return Ending.EMOJI
    if last.isascii():  # of the ASCII signs, these three are parts of composed characters such as U+2260
        return Ending.CLUSTER if last.isalnum() or last in "<=>" else Ending.SETTLED
    return Ending.SETTLED if unicodedata.category(last)[0] in "PZ" else Ending.CLUSTER

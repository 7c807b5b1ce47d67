"""One automaton's place in one streamed text.

A cursor reads units (``inference.phrases.units``) and answers in characters: where a match stands, and where the
partial matches that are still alive began.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from inference.phrases.automaton import (
    CLUSTER_START,
    FLAG_START,
    LATER_LINE_START,
    LINE_START,
    TEXT_START,
    WORD_START,
    Ending,
    Matcher,
    Pattern,
)
from inference.phrases.units import (
    INVISIBLES,
    NEWLINES,
    is_extender,
    is_regional,
    is_word,
    mark_order,
    starts_line,
    starts_text,
)


class Match(NamedTuple):
    """A complete pattern at ``[start, end)``, in indexes of the text's characters. The least match counts first."""

    start: int
    end: int
    order: tuple[int, int]
    pattern: Pattern


def may_start(conditions: int, chars: Sequence[str], index: int) -> bool:
    """Return whether a match may start at ``chars[index]``: one of the conditions holds, or there is none."""
    if not conditions:
        return True
    if conditions & WORD_START and not is_word(chars, index - 1):
        return True
    if conditions & LINE_START and starts_line(chars, index):
        return True
    if conditions & TEXT_START and starts_text(chars, index):
        return True
    if conditions & LATER_LINE_START and starts_line(chars, index) and not starts_text(chars, index):
        return True
    if conditions & FLAG_START and _regionals_before(chars, index) % 2 == 0:
        return True
    return bool(conditions & CLUSTER_START) and is_extender(chars[index]) and _starts_cluster(chars, index)


def _regionals_before(chars: Sequence[str], index: int) -> int:
    first = index
    while first > 0 and is_regional(chars[first - 1]):
        first -= 1
    return index - first


def _starts_cluster(chars: Sequence[str], index: int) -> bool:
    index -= 1
    while index >= 0 and chars[index] in INVISIBLES:
        index -= 1
    return index < 0 or chars[index] in NEWLINES


class Cursor:
    """The state of one matcher after the text read so far.

    Args:
        matcher: the automaton to run.
        chars: all characters of the text. The owner appends characters before they are read.
    """

    __slots__ = ("_base", "_breaks", "_chars", "_origins", "_shifts", "matcher", "run", "state")

    def __init__(self, matcher: Matcher, chars: Sequence[str]) -> None:
        self.matcher = matcher
        self.state = 0  # the automaton's node
        self._chars = chars
        # Character index minus unit index, from the unit ``_breaks[i]`` on; ``_origins[i]`` is the character whose
        # units made the difference.
        self._breaks: list[int] = []
        self._shifts: list[int] = []
        self._origins: list[int] = []
        # The combining marks at the end of the text, in canonical order, and the node before them. A mark that comes
        # later may have its place before them.
        self.run: list[str] = []
        self._base = 0

    # -- units and characters ----------------------------------------------------------------------

    def character(self, unit: int) -> int:
        """Return the index of the character that a unit belongs to."""
        if not self._breaks:
            return unit
        at = bisect_right(self._breaks, unit)
        return unit + self._shifts[at - 1] if at else unit

    def _first_unit(self, index: int) -> int:
        """Return the unit index of the character at ``index``, the end of the text that is mapped."""
        return index - self._shifts[-1] if self._shifts else index

    def _map(self, text: str, index: int) -> None:
        """Note which units belong to which characters of ``text``, which begins at ``index``."""
        unit, table = self._first_unit(index), self.matcher.table
        for origin, char in enumerate(text, index):
            count = len(table[ord(char)])
            for extra in range(1, count):
                self._note_break(unit + extra, origin - unit - extra, origin)
            unit += count
            if count != 1:
                self._note_break(unit, origin + 1 - unit, origin)

    def _note_break(self, unit: int, shift: int, origin: int) -> None:
        self._breaks.append(unit)
        self._shifts.append(shift)
        self._origins.append(origin)

    # -- partial matches ---------------------------------------------------------------------------

    def held_from(self, length: int) -> int:
        """Return where the longest live partial match began; ``length``, the end of the text, if there is none."""
        state = self.state
        if not state and not self.run:
            return length
        units = self._first_unit(length)
        start = self.begin(self.character(units - self.matcher.depth[state])) if state else length
        if self.run and self._base:
            start = min(start, *self._starts_of(self._base, units - len(self.run), every=False), length)
        return start

    def begin(self, start: int) -> int:
        """Return where a match begins that has its first unit at ``start``: at ``start``, or behind a spared letter.

        The first letter of a phrase inside a word belongs to that word and leaves at once. Otherwise every text that
        ends in "to" would wait for the next token, because "o" may begin ``Oh honey``. Only the letters of ASCII count:
        in scripts without blanks between words, words begin anywhere.
        """
        chars = self._chars
        if start and chars[start] in self.matcher.spared and chars[start - 1].isascii() and chars[start - 1].isalpha():
            return start + 1
        return start

    def live_starts(self, length: int, *, every: bool = False) -> list[int]:
        """Return where live partial matches began.

        Args:
            length: characters read.
            every: return all of them. False: the longest one that leads to the current node, and the longest one before
                the marks at the end.
        """
        units = self._first_unit(length)
        starts = list(self._starts_of(self.state, units, every=every))
        if self.run:
            starts += self._starts_of(self._base, units - len(self.run), every=every)
        return starts

    def _starts_of(self, node: int, units: int, *, every: bool) -> Iterator[int]:
        matcher = self.matcher
        while node:
            start = self.character(units - matcher.depth[node])
            begin = self.begin(start)
            # No pattern goes on with the marks that stand behind a spared letter.
            ended = self.run and begin > start and matcher.depth[node] == 1
            if may_start(matcher.conditions[node], self._chars, start) and not ended:
                yield begin
            if not every:
                return
            node = matcher.failure[node]

    # -- reading -----------------------------------------------------------------------------------

    def first_needed(self, index: int) -> int:
        """Return the first character that a partial match alive at ``index`` may begin with; drop all that is behind.

        Args:
            index: new end of the text.
        """
        self._truncate(index)
        return self.character(max(0, self._first_unit(index) - self.matcher.reach))

    def restart(self, index: int) -> None:
        """Go back to the root, to read on from ``index``."""
        self._truncate(index)
        self.state = 0
        self.run.clear()

    def _truncate(self, index: int) -> None:
        while self._origins and self._origins[-1] >= index:
            del self._origins[-1], self._breaks[-1], self._shifts[-1]

    def pass_over(self, text: str, index: int) -> None:
        """Take note of characters in which no pattern can start."""
        if not text.isascii():
            text.translate(self.matcher.table)  # makes the entries of its characters
            if not self.matcher.table.uneven.isdisjoint(text):
                self._map(text, index)
        self.run.clear()

    def read(self, text: str, index: int) -> Sequence[Match]:
        """Read the characters ``text``, which begin at ``index``; return the patterns that are complete.

        A pattern whose last letter is changed by an extender behind it is not complete. Where the text ends there, the
        match is returned, and its owner has to look at what follows.
        """
        matcher = self.matcher
        table = matcher.table
        if text.isascii():
            units = text.lower() if table.folds_case else text
        else:
            units = text.translate(table)
            if not table.extending.isdisjoint(text):
                position = self._first_unit(index)
                self._map(text, index)
                return self._read_marks(units, position)
        position = index - self._shifts[-1] if self._shifts else index
        if len(units) != len(text) or (table.uneven and not table.uneven.isdisjoint(text)):
            self._map(text, index)
        if units and self.run:
            self.run.clear()
        state = self.state
        if not state and matcher.starts.isdisjoint(units):
            return ()
        found: list[Match] = []
        goto, failure, flagged = matcher.goto, matcher.failure, matcher.flagged
        for unit in units:
            node = goto[state].get(unit)
            while node is None and state:
                state = failure[state]
                node = goto[state].get(unit)
            state = node or 0
            if flagged[state]:
                state = self._arrive(state, position, found)
            position += 1
        self.state = state
        return found

    def _read_marks(self, units: str, position: int) -> Sequence[Match]:
        """The same for units with extenders among them, in the order of the text."""
        matcher, run, found = self.matcher, self.run, list[Match]()
        state = self.state
        for number, unit in enumerate(units):
            order = mark_order(unit)
            if order and run and order < mark_order(run[-1]):
                run.append(unit)
                run.sort(key=mark_order)  # stable, as the canonical ordering algorithm wants it
                state = self._base
                for place, mark in enumerate(run[:-1], position + 1 - len(run)):
                    state = self._prune(matcher.step(state, mark), place)
                state = matcher.step(state, run[-1])
            else:
                if order and not run:
                    self._base = state
                if order:
                    run.append(unit)
                else:
                    run.clear()
                state = matcher.step(state, unit)
            if matcher.flagged[state]:
                extended = number + 1 < len(units) and is_extender(units[number + 1])
                state = self._arrive(state, position, found, extended=extended)
            position += 1
        self.state = state
        return found

    def _prune(self, node: int, unit: int) -> int:
        """Return the longest partial match that ends with ``unit`` and can still become a match."""
        matcher = self.matcher
        while node and not may_start(
            matcher.conditions[node], self._chars, self.character(unit + 1 - matcher.depth[node])
        ):
            node = matcher.failure[node]
        return node

    def _arrive(self, node: int, unit: int, found: list[Match], *, extended: bool = False) -> int:
        """Look at a node that the automaton has reached with ``unit``; add the patterns that are complete.

        Args:
            node: the node.
            unit: index of the unit.
            found: complete matches so far.
            extended: an extender follows.

        Returns:
            The node for the longest partial match that can still become a match.
        """
        matcher = self.matcher
        if matcher.failure[node] < 0:
            matcher.visit(node)
        state = node = self._prune(node, unit)
        while node:
            for pattern in matcher.patterns.get(node, ()):
                if extended and pattern.ending is Ending.CLUSTER:
                    continue
                start = self.character(unit + 1 - matcher.depth[node])
                if may_start(pattern.start, self._chars, start):
                    end = self.character(unit) + 1
                    begin = self.begin(start) if end - start > 1 else start
                    found.append(Match(begin, end, pattern.order, pattern))
            node = matcher.link[node]
        return state

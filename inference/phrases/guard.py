"""Banned phrases and stops over a stream: what may leave, what is held, and where a phrase began.

This is the one place where text is held. The guard's verdict is a function of the text alone, never of how it was cut
into deltas: among all matches the one that starts first, then the one that ends first. A match therefore waits while
a live partial match started before it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

from inference.phrases.automaton import BLANKS, Matcher, Pattern, PhraseAutomaton, exact, fold, is_word, may_start

__all__ = ["Hit", "PhraseAutomaton", "PhraseGuard"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A listed text that was met, at ``[start, end)`` in characters fed since the start, rewound ones taken off.

    ``stop``: the reply ends before it (blanks and newlines before a speaker label have left already); else it is a
    banned phrase. Where a phrase begins in text that was released before an earlier hit, ``start`` is the first
    character that was not.
    """

    start: int
    end: int
    phrase: str
    stop: bool


class _Match(NamedTuple):
    """A match at ``[start, end)`` of the kept text; the least is the one that counts."""

    start: int
    end: int
    order: tuple[bool, bool, int]
    pattern: Pattern


class _Cursor:
    """Where one matcher stands in the text. ``expanded`` are the unit positions after the first of one character."""

    __slots__ = ("expanded", "matcher", "state")

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.state = 0
        self.expanded: list[int] = []

    def units(self, text: str, first: int) -> tuple[int, str]:
        """The units of ``text``, which is at character ``first``, and the position of the first of them."""
        if not self.matcher.folds:
            return first, exact(text)
        units, position, expanded = fold(text), first + len(self.expanded), self.expanded
        if len(units) != len(text):
            for index, char in enumerate(text, first):
                expanded.extend(index + len(expanded) + extra for extra in range(1, len(fold(char))))
        return position, units

    def character(self, unit: int) -> int:
        """The character that a unit belongs to: a match inside an expansion covers all of it."""
        return unit - bisect_right(self.expanded, unit) if self.expanded else unit

    def start(self, node: int, length: int) -> int:
        """The character where the partial match ``node`` began, ``length`` characters having been read."""
        return self.character(length + len(self.expanded) - self.matcher.depth[node])

    def restart(self, first: int) -> None:
        """Back to the root at character ``first``."""
        self.state = 0
        while self.expanded and self.expanded[-1] - len(self.expanded) >= first:
            self.expanded.pop()


class PhraseGuard:
    """The guard of one reply. Feed it what the engine gives; send what it returns, all of it and nothing else.

    After a hit: ``rewind`` and feed what is generated instead, or ``skip`` and go on behind the phrase; after a stop
    the reply is over. At every other end (length, timeout, cancel) what was returned so far is clean as it is, and
    ``finish`` gives the rest.
    """

    __slots__ = (
        "_automaton", "_best", "_chars", "_cursors", "_cuts", "_ended", "_gap", "_hit", "_match", "_pending",
        "_refuted", "_released",
    )  # fmt: skip

    def __init__(self, automaton: PhraseAutomaton) -> None:
        self._automaton = automaton
        self._cursors = [_Cursor(matcher) for matcher in automaton.matchers]
        self._chars: list[str] = []  # the text as delivered and held, cuts closed
        self._released = 0  # how many of them have left
        self._cuts: list[tuple[int, int]] = []  # (index, characters cut before it)
        self._gap = False  # a blank right behind the last cut would be the second one
        self._best: _Match | None = None
        self._pending: list[_Match] = []  # whole-word matches at the very end
        # Whole-word matches that a letter behind them refuted. They count again if the text is rewound to their end, so
        # they are held as long as it may be.
        self._refuted: list[_Match] = []
        self._hit: Hit | None = None
        self._match: _Match | None = None
        self._ended = False

    @property
    def position(self) -> int:
        """Characters fed and kept; the coordinate of the next one."""
        return self._coordinate(len(self._chars))

    @property
    def held_from(self) -> int:
        """Coordinate of the first character that has not left; ``position`` when all have."""
        return self._coordinate(self._released)

    @property
    def pending(self) -> str:
        """The text held now."""
        return "".join(self._chars[self._released :])

    def safe_end(self, to: int) -> int:
        """Where to stop instead, by a caller that shows text only up to ``to`` although more has left the guard.

        That is ``to``, or the start of the whole-word phrase that would stand at the end of what is shown.
        """
        index, _ = self._place(to)
        if not self._automaton.whole_words:
            return to
        if index < len(self._chars) and not is_word(self._chars, index):
            return to  # before anything but a part of a word, such a phrase would have been a hit
        probe = PhraseGuard(self._automaton)
        probe._chars = self._chars[:index]
        probe._restart(index)
        return min((self._coordinate(match.start) for match in probe._pending), default=to)

    def feed(self, text: str) -> tuple[str, Hit | None]:
        """Take text; give what may leave now, and the hit if one is settled.

        After a hit nothing more is looked at until ``rewind`` or ``skip``: text fed meanwhile is kept behind it.
        """
        text = self._close_gap(text)
        first = len(self._chars)
        self._chars.extend(text)
        if self._hit is not None:
            return "", self._hit
        self._read(text, first)
        if self._best or self._pending or self._refuted:
            return self._settle()
        released, length = self._released, len(self._chars)
        held = length  # nothing but live partial matches: what _settle would find, sooner
        for cursor in self._cursors:
            if cursor.state:
                held = min(held, cursor.start(cursor.state, length))
        self._released = held = max(held, released)
        return text if released == first and held == length else "".join(self._chars[released:held]), None

    def finish(self) -> tuple[str, Hit | None]:
        """The stream has ended: a word boundary, and every partial match is dead. Gives the rest, or a hit."""
        if self._hit is not None:
            return "", self._hit
        self._ended = True
        return self._settle()

    def rewind(self, to: int | None = None) -> None:
        """Forget everything from the hit's start on, or from the coordinate ``to``, if that is earlier.

        Text from ``to`` on that ``feed`` has given already must not have been shown. The next ``feed`` continues there.
        Raises RuntimeError when there is neither a hit nor a place.
        """
        if self._hit is not None:
            to = self._hit.start if to is None else min(to, self._hit.start)
        if to is None:
            raise RuntimeError("nothing to rewind: no hit and no place given")
        index, self._cuts = self._place(to)
        self._ended = False
        self._restart(index)

    def skip(self) -> tuple[str, Hit | None]:
        """Cut the phrase that was hit and go on with what was fed behind it, as if it followed the text before it.

        Of the blanks around the cut one is left: the one before it, or that of a phrase that has blanks at both ends.
        Gives what ``feed`` gives (after ``finish``: what ``finish`` gives). Coordinates go on counting the
        characters cut. Raises RuntimeError without a hit.
        """
        if self._match is None:
            raise RuntimeError("nothing to skip: no hit")
        start, end = self._match.start, self._match.end
        if end - start > 1 and self._chars[start] in BLANKS and self._chars[end - 1] in BLANKS:
            end -= 1
        rest = "".join(self._chars[end:])
        inside = sum(length for index, length in self._cuts if start < index <= end)
        self._cuts = [cut for cut in self._cuts if cut[0] <= start] + [(start, end - start + inside)]
        self._restart(start)
        self._gap = not start or self._chars[-1].isspace()
        rest = self._close_gap(rest)
        self._chars.extend(rest)
        self._read(rest, start)
        return self._settle()

    def _close_gap(self, text: str) -> str:
        """``text`` without the blank that a cut would leave doubled."""
        if not self._gap or not text:
            return text
        self._gap = False
        if text[0] not in BLANKS:
            return text
        index, length = self._cuts[-1]
        self._cuts[-1] = index, length + 1
        return text[1:]

    def _coordinate(self, index: int) -> int:
        return index + sum(length for at, length in self._cuts if at <= index) if self._cuts else index

    def _place(self, coordinate: int) -> tuple[int, list[tuple[int, int]]]:
        """The index of the first character at or behind ``coordinate``, and the cuts (or parts of one) before it."""
        cuts: list[tuple[int, int]] = []
        shift = 0
        for index, length in self._cuts:
            if coordinate <= index + shift:
                break
            cuts.append((index, min(length, coordinate - index - shift)))
            shift += cuts[-1][1]
        return coordinate - shift, cuts

    def _restart(self, index: int) -> None:
        """Stand at ``index`` as if nothing behind it had been fed. Only text within the automaton's reach matters."""
        del self._chars[index:]
        self._gap = False
        self._released = min(self._released, index)
        self._hit = self._match = None
        self._pending = []
        self._refuted = [match for match in self._refuted if match.end < index]
        first = max(0, index - self._automaton.reach)
        for cursor in self._cursors:
            cursor.restart(first)
        self._read("".join(self._chars[first:]), first)
        self._refuted = list(dict.fromkeys(self._refuted))
        self._best = None  # nothing complete is left before index

    def _read(self, text: str, first: int) -> None:
        """Run the matchers over ``text``, the last characters kept, and note what matched."""
        if self._pending and text:
            waiting, self._pending = self._pending, []
            for match in waiting:
                self._note(match)
        for cursor in self._cursors:
            matcher, state = cursor.matcher, cursor.state
            position, units = cursor.units(text, first)
            if not state and matcher.starts.isdisjoint(units):
                continue
            goto, fail, conditions = matcher.goto, matcher.fail, matcher.conditions
            patterns, link = matcher.patterns, matcher.link
            for unit in units:
                node = goto[state].get(unit)
                while node is None and state:
                    state = fail[state]
                    node = goto[state].get(unit)
                state = node or 0
                if state:
                    if conditions[state]:
                        state = self._prune(cursor, state, position)
                    if patterns[state] or link[state]:
                        self._collect(cursor, state, position)
                position += 1
            cursor.state = state

    def _prune(self, cursor: _Cursor, node: int, unit: int) -> int:
        """The longest partial match that ends with ``unit`` and can still lead to a hit."""
        matcher, chars = cursor.matcher, self._chars
        while node and not may_start(matcher.conditions[node], chars, cursor.character(unit + 1 - matcher.depth[node])):
            node = matcher.fail[node]
        return node

    def _collect(self, cursor: _Cursor, node: int, unit: int) -> None:
        """Note the patterns that are complete with ``unit``."""
        matcher = cursor.matcher
        end = cursor.character(unit) + 1
        while node:
            start = cursor.character(unit + 1 - matcher.depth[node])
            for pattern in matcher.patterns[node]:
                if end > self._released and may_start(pattern.start, self._chars, start):
                    self._note(_Match(max(start, self._released), end, pattern.order, pattern))
            node = matcher.link[node]

    def _note(self, match: _Match) -> None:
        if match.pattern.whole_word and match.end == len(self._chars):
            self._pending.append(match)
        elif match.pattern.whole_word and is_word(self._chars, match.end):
            self._refuted.append(match)
        elif self._best is None or match < self._best:
            self._best = match

    def _settle(self) -> tuple[str, Hit | None]:
        """Decide on what has been read: release what no match can start in, or settle the best match."""
        points = {len(self._chars)}  # where a match may still start
        if self._ended:
            self._best = min([*self._pending, *([self._best] if self._best else [])], default=None)
            self._pending = []
        else:
            points.update(match.start for match in self._pending)
            points.update(max(start, self._released) for cursor in self._cursors for start in self._live(cursor))
        best = self._best
        if best is None:
            return self._release(points), None
        if min(points) < best.start:
            return self._release(points | {best.start}), None
        if best.pattern.stop:  # the end it makes is a word boundary
            best = min((match for match in self._refuted if match.end == best.start), default=best)
        self._match = best
        start, end = self._coordinate(best.start), self._coordinate(best.end - 1) + 1
        self._hit = Hit(start, end, best.pattern.text, best.pattern.stop)
        return self._release({best.start}), self._hit

    def _live(self, cursor: _Cursor) -> list[int]:
        """Where live partial matches began, the earliest first."""
        matcher, node, length, starts = cursor.matcher, cursor.state, len(self._chars), []
        while node:
            start = cursor.start(node, length)
            if may_start(matcher.conditions[node], self._chars, start):
                starts.append(start)
            if not self._refuted:
                break  # the others are asked for only where something was refuted
            node = matcher.fail[node]
        return starts

    def _release(self, points: set[int]) -> str:
        """Let go of everything before ``points`` and before the refuted matches that end at one of them."""
        kept: list[_Match] = []
        for match in sorted(self._refuted, key=lambda match: -match.end):
            if match.end in points:
                points.add(match.start)
                kept.append(match)
        self._refuted = kept
        released, self._released = self._released, min(points)
        return "".join(self._chars[released : self._released])

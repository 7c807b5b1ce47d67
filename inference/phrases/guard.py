"""Banned phrases, speaker labels and stops over a stream: what may leave, what is held, where a phrase began.

The guard's verdict is a function of the text alone, never of the pieces in which the text arrived: among all matches
the one that starts first counts, then the one that ends first. A complete match therefore waits while a partial match
that started before it is alive. A match inside a word starts behind its first letter (``Cursor.begin``).

A *coordinate* is a number of characters since the start of the reply. Characters that were cut count, characters that
were rewound do not: coordinates are places in the text as the engine generated it.

Example: the phrases are ``Oh honey`` and ``honeymoon``. The engine gives ``Well, oh``, `` hon``, ``eymoon?``::

    coordinate     0         1         2
                   0123456789012345678901
    text           Well, oh honeymoon?
    feed "Well, oh"      ~~                "Well, " leaves; "oh" may begin a phrase and is held
    feed " hon"          ~~~~~~            nothing leaves; held_from = 6, position = 12
    feed "eymoon?"       [------]          "oh honey" is complete at 14; "m" shows that its "y" is a letter of its own
                            [-------]      "honeymoon" starts later: it does not count now
                         ^                 returned: "", Hit(start=6, end=14, phrase="Oh honey")

    rewind()       Well,                   position = 6: the engine goes on behind "Well, " with another token
    skip()         Well, moon?             "moon?" leaves; position = 19, the eight characters cut still count
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.phrases.automaton import Kind, Matcher, PhraseAutomaton
from inference.phrases.coordinates import Cuts
from inference.phrases.cursor import Cursor, Match
from inference.phrases.endings import Verdict, ends_at, is_inside_letter, judge
from inference.phrases.units import BLANKS, NEWLINES, is_word, starts_line

__all__ = ["Hit", "PhraseAutomaton", "PhraseGuard"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A listed text that was met.

    Args:
        start: coordinate of the first character; the first one that has not left, where an earlier part has.
        end: coordinate behind the last character.
        phrase: the text as listed.
        kind: what to do: a LABEL is skipped, the reply ends before a STOP, a PHRASE is banned.
    """

    start: int
    end: int
    phrase: str
    kind: Kind = Kind.PHRASE

    @property
    def stop(self) -> bool:
        """Whether the reply ends before the text. Blanks and line breaks before a speaker label have left already."""
        return self.kind is Kind.STOP

    @property
    def label(self) -> bool:
        """Whether the text is the speaker's own label, which is skipped and is no banned phrase."""
        return self.kind is Kind.LABEL


class PhraseGuard:
    """The guard of one reply. Feed it the engine's text; send the text that it returns and nothing else.

    After a hit call ``rewind`` and feed other text, or ``skip`` to go on behind the phrase. After a stop the reply is
    over. At every other end (length, timeout, cancel) the text returned so far is clean, and ``finish`` gives the rest.

    Args:
        automaton: the banned phrases.
        matchers: other texts to find: speaker labels and stops (``inference.phrases.stops``).
    """

    __slots__ = (
        "_automaton", "_best", "_chars", "_cursors", "_cuts", "_ended", "_gap", "_hit", "_in_label", "_line_cursors",
        "_line_open", "_match", "_matchers", "_pending", "_refuted", "_released", "_text_cursors",
    )  # fmt: skip

    def __init__(self, automaton: PhraseAutomaton, matchers: Sequence[Matcher] = ()) -> None:
        self._automaton = automaton
        self._matchers = matchers
        self._chars: list[str] = []  # the text as delivered and held, cuts closed
        self._cursors = [Cursor(matcher, self._chars) for matcher in (*automaton.matchers, *matchers)]
        self._text_cursors = [cursor for cursor in self._cursors if not cursor.matcher.line_start]
        self._line_cursors = [cursor for cursor in self._cursors if cursor.matcher.line_start]
        self._released = 0  # characters that have left
        self._cuts = Cuts()
        # White space to drop behind the last cut: "" none, " " one blank, "*" all of it.
        self._gap = ""
        self._line_open = True  # only blanks stand between the last line break and the end
        self._in_label = False  # a partial match of a label is alive
        self._best: Match | None = None
        self._pending: list[Match] = []  # complete matches at the very end, whose next character decides
        # Whole-word matches with a part of a word behind them. They count again if the text is rewound to their end, so
        # they are held as long as that can happen.
        self._refuted: list[Match] = []
        self._hit: Hit | None = None
        self._match: Match | None = None
        self._ended = False

    @property
    def position(self) -> int:
        """Coordinate of the next character to be fed."""
        return self._cuts.coordinate(len(self._chars))

    @property
    def held_from(self) -> int:
        """Coordinate of the first character that has not left; ``position`` when all have."""
        return self._cuts.coordinate(self._released)

    @property
    def pending(self) -> str:
        """The text held now."""
        return "".join(self._chars[self._released :])

    def begin_behind(self, text: str) -> None:
        """Read text that the client has already, before the first ``feed``: no phrase may form over the seam.

        A phrase that begins in ``text`` and is completed by later text is a hit that starts at the seam. Coordinates
        count ``text``.
        """
        self._chars.extend(text)
        self._read(text, 0)
        self._released = len(self._chars)
        self._best, self._pending, self._refuted = None, [], []

    def feed(self, text: str) -> tuple[str, Hit | None]:
        """Take text. After a hit, text is kept unread until ``rewind`` or ``skip``.

        Args:
            text: the next piece of the reply.

        Returns:
            The text that may leave now, and the hit if one is settled, else None.
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
        held = length  # only partial matches are alive: the same as _settle, without its lists
        for cursor in self._cursors if self._in_label else self._text_cursors:
            if (cursor.state or cursor.run) and (start := cursor.held_from(length)) < held:
                held = start
        if held < released:
            held = released
        self._released = held
        return text if released == first and held == length else "".join(self._chars[released:held]), None

    def finish(self) -> tuple[str, Hit | None]:
        """End the text: a word ends there and no partial match is alive. Return the rest, or a hit."""
        if self._hit is not None:
            return "", self._hit
        self._ended = True
        return self._settle()

    def rewind(self, to: int | None = None) -> None:
        """Drop everything from the start of the hit on. The next ``feed`` continues there.

        Args:
            to: a coordinate before the hit to drop everything from. Text behind it that ``feed`` has returned must not
                have been shown. None: the start of the hit.

        Raises:
            RuntimeError: there is neither a hit nor a coordinate.
        """
        if self._hit is not None:
            to = self._hit.start if to is None else min(to, self._hit.start)
        if to is None:
            raise RuntimeError("nothing to rewind: no hit and no place given")
        index = self._cuts.index(to)
        self._cuts.truncate(to)
        self._ended = False
        self._restart(index)

    def skip(self) -> tuple[str, Hit | None]:
        """Cut the text that was hit and go on with the text behind it, as if that followed the text before it.

        Of the blanks around the cut one is left: the one before it, or that of a phrase that has blanks at both ends.
        Behind a speaker label all white space goes.

        Returns:
            The same as ``feed``; after ``finish`` the same as ``finish``.

        Raises:
            RuntimeError: there is no hit.
        """
        if self._match is None:
            raise RuntimeError("nothing to skip: no hit")
        start, end, kind = self._match.start, self._match.end, self._match.pattern.kind
        if end - start > 1 and self._chars[start] in BLANKS and self._chars[end - 1] in BLANKS:
            end -= 1
        rest = "".join(self._chars[end:])
        self._cuts.add(start, end)
        self._restart(start)
        if kind is Kind.LABEL:
            self._gap = "*"
        elif not start or self._chars[-1].isspace():
            self._gap = " "
        rest = self._close_gap(rest)
        self._chars.extend(rest)
        self._read(rest, start)
        return self._settle()

    def safe_end(self, to: int) -> int:
        """Return where a caller has to stop that wants to show the text up to ``to`` and no further.

        Args:
            to: a coordinate; more text than that has left the guard.

        Returns:
            ``to``, or the start of the phrase that would be complete at the end of the text shown: a whole word without
            the letters behind it, a letter without its accent.
        """
        index = self._cuts.index(to)
        if index < len(self._chars):
            splits_word = self._automaton.whole_words and is_word(self._chars, index)
            if not splits_word and not is_inside_letter(self._chars, index):
                return to
        probe = PhraseGuard(self._automaton, self._matchers)
        probe._chars.extend(self._chars[:index])
        probe._restart(index)
        return min((self._cuts.coordinate(match.start) for match in probe._pending), default=to)

    def _close_gap(self, text: str) -> str:
        """Return ``text`` without the white space that a cut would leave doubled."""
        if not self._gap or not text:
            return text
        rest = text.lstrip() if self._gap == "*" else text[text[0] in BLANKS :]
        if rest or self._gap == " ":
            self._gap = ""
        self._cuts.extend_last(len(text) - len(rest))
        return rest

    # -- reading -----------------------------------------------------------------------------------

    def _restart(self, index: int) -> None:
        """Stand at ``index`` as if nothing behind it had been fed."""
        del self._chars[index:]
        self._gap = ""
        self._released = min(self._released, index)
        self._hit = self._match = None
        self._pending = []
        self._refuted = [match for match in self._refuted if match.end < index]
        first = min((cursor.first_needed(index) for cursor in self._cursors), default=index)
        for cursor in self._cursors:
            cursor.restart(first)
        self._line_open, self._in_label = starts_line(self._chars, first), False
        self._read("".join(self._chars[first:]), first)
        self._refuted = list(dict.fromkeys(self._refuted))
        self._best = None  # a match that is complete before index was settled before

    def _read(self, text: str, first: int) -> None:
        """Run the matchers over ``text``, the last characters kept, which begin at ``first``; note their matches."""
        if self._pending and text:
            waiting, self._pending = self._pending, []
            for match in waiting:
                self._note(match)
        for cursor in self._text_cursors:
            for match in cursor.read(text, first):
                self._note_unreleased(match)
        if self._line_cursors:
            self._read_lines(text, first)

    def _read_lines(self, text: str, first: int) -> None:
        """Run the matchers of line starts, which need no look at text inside a line."""
        if not self._line_open and not self._in_label and NEWLINES.isdisjoint(text):
            if not text.isascii():
                for cursor in self._line_cursors:
                    cursor.pass_over(text, first)
            return
        for cursor in self._line_cursors:
            for match in cursor.read(text, first):
                self._note_unreleased(match)
        self._in_label = any(cursor.state or cursor.run for cursor in self._line_cursors)
        self._line_open = starts_line(self._chars, len(self._chars))

    def _note_unreleased(self, match: Match) -> None:
        """Note a match, or the part of it that has not left."""
        if match.end > self._released:
            self._note(match._replace(start=self._released) if match.start < self._released else match)

    def _note(self, match: Match) -> None:
        """File a complete match by the characters behind it."""
        verdict, match = judge(match, self._chars)
        if verdict is Verdict.PENDING:
            self._pending.append(match)
        elif verdict is Verdict.REFUTED:
            self._refuted.append(match)
        elif verdict is Verdict.SETTLED and (self._best is None or match < self._best):
            self._best = match

    # -- deciding ----------------------------------------------------------------------------------

    def _settle(self) -> tuple[str, Hit | None]:
        """Decide on the text that was read: release what no match can start in, or settle the best match."""
        points = {len(self._chars)}  # where a match may still start
        if self._ended:
            self._best = min([*self._pending, *([self._best] if self._best else [])], default=None)
            self._pending = []
        else:
            points.update(match.start for match in self._pending)
            for cursor in self._cursors:  # all starts are asked for only where something was refuted
                starts = cursor.live_starts(len(self._chars), every=bool(self._refuted))
                points.update(max(start, self._released) for start in starts)
        best = self._best
        if best is None:
            return self._release(points), None
        if min(points) < best.start:
            return self._release(points | {best.start}), None
        if best.pattern.kind is Kind.STOP:  # the end it makes is a word boundary
            best = min((match for match in self._refuted if ends_at(match, self._chars, best.start)), default=best)
        self._match = best
        start, end = self._cuts.coordinate(best.start), self._cuts.coordinate(best.end - 1) + 1
        self._hit = Hit(start, end, best.pattern.text, min(best.pattern.kind, Kind.PHRASE))
        return self._release({best.start}), self._hit

    def _release(self, points: set[int]) -> str:
        """Return everything before ``points`` and before the refuted matches that end at one of them."""
        if self._refuted:
            kept: list[Match] = []
            for match in sorted(self._refuted, key=lambda match: -match.end):
                if any(ends_at(match, self._chars, point) for point in points):
                    points.add(match.start)
                    kept.append(match)
            self._refuted = kept
        released, self._released = self._released, min(points)
        return "".join(self._chars[released : self._released])

"""The guard's promise, said slowly: every question is answered over the whole text, by trying everything."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from personas.snapshot import PhraseRule

BLANKS = " \t\u00a0"
SAME = {"’": "'", "‘": "'", "ʼ": "'", "″": '"', "“": '"', "”": '"'}


def straight(char: str) -> str:
    return SAME.get(char, char)


def in_word(text: str, index: int) -> bool:
    while 0 <= index < len(text) and unicodedata.category(text[index])[0] == "M":
        index -= 1
    return 0 <= index < len(text) and (straight(text[index]).isalnum() or text[index] == "_")


def on_new_line(text: str, index: int) -> bool:
    before = text[:index].rstrip(BLANKS)
    return not before or before[-1] in "\n\r\u2028\u2029"


@dataclass(frozen=True)
class Listed:
    """A rule, a speaker label (``line``) or a text stop."""

    text: str
    cased: bool = False
    word: bool = False
    line: bool = False
    stop: bool = False

    def spell(self, char: str) -> list[str]:
        return [straight(char)] if self.cased else [straight(unit) for unit in char.casefold()]

    def may_start(self, text: str, start: int) -> bool:
        if self.line:
            return on_new_line(text, start)
        return not self.word or start == 0 or not in_word(text, start - 1)

    def spelled(self, text: str) -> tuple[list[str], list[int]]:
        """The units of a text, and the character each belongs to."""
        pairs = [(unit, index) for index, char in enumerate(text) for unit in self.spell(char)]
        return [unit for unit, _ in pairs], [index for _, index in pairs]

    def occurrences(self, text: str) -> Iterator[tuple[int, int]]:
        """Spans that spell the text and may start where they do, whatever follows."""
        units, owner = self.spelled(text)
        wanted, _ = self.spelled(self.text)
        for at in range(len(units) - len(wanted) + 1):
            if units[at : at + len(wanted)] == wanted and self.may_start(text, owner[at]):
                yield owner[at], owner[at + len(wanted) - 1] + 1

    def may_end(self, text: str, end: int) -> bool:
        return not self.word or end == len(text) or not in_word(text, end)

    def partials(self, text: str) -> Iterator[int]:
        """Where a match may have begun that the text's end has not settled."""
        units, owner = self.spelled(text)
        wanted, _ = self.spelled(self.text)
        for at in range(len(units)):
            tail = units[at:]
            whole = tail == wanted and self.word and owner[at] < len(text)
            if (whole or (len(tail) < len(wanted) and wanted[: len(tail)] == tail)) and self.may_start(text, owner[at]):
                yield owner[at]


def listed(rules: Sequence[PhraseRule], labels: Sequence[str] = (), stops: Sequence[str] = ()) -> list[Listed]:
    return [
        *(Listed(f"{label}:", line=True, stop=True) for label in labels),
        *(Listed(stop, cased=True, stop=True) for stop in stops),
        *(Listed(rule.text, cased=rule.case_sensitive, word=rule.whole_word) for rule in rules),
    ]


def matches(items: Sequence[Listed], text: str) -> list[tuple[int, int, bool]]:
    """(start, end, is a ban) of everything listed in a finished text, the one that counts first."""
    return sorted(
        (start, end, not item.stop)
        for item in items
        for start, end in item.occurrences(text)
        if item.may_end(text, end)
    )


def clean(items: Sequence[Listed], text: str) -> bool:
    """No phrase stands in this text if it ends here."""
    return not any(ban for _, _, ban in matches(items, text))


def held_from(items: Sequence[Listed], text: str) -> int:
    """The first character that an unfinished text without a settled hit must hold: nothing less, nothing more.

    A place where a match may yet start is one the text may be taken back to; a whole-word phrase that ends right there
    is held as well, for nothing but the letter behind it spoils it.
    """
    places = {start for item in items for start in item.partials(text)}
    places |= {
        start
        for item in items
        for start, end in item.occurrences(text)
        if not (item.word and end < len(text) and in_word(text, end))
    }
    return exposed(items, text, places)


def exposed(items: Sequence[Listed], text: str, places: set[int]) -> int:
    """The earliest of ``places`` (default: the end) and of the whole-word phrases that end at one of them."""
    words = sorted(((end, start) for item in items if item.word for start, end in item.occurrences(text)), reverse=True)
    for end, start in words:
        if end in places:
            places.add(start)
    return min(places, default=len(text))


def first_hit(items: Sequence[Listed], text: str, floor: int = 0) -> tuple[int, int, bool] | None:
    """(start, end, stop) of what counts in a finished text whose first ``floor`` characters are out."""
    found = sorted((max(start, floor), end, ban) for start, end, ban in matches(items, text) if end > floor)
    if not found:
        return None
    start, end, ban = found[0]
    if not ban:
        bare = [(max(at, floor), to) for at, to, is_ban in matches(items, text[:start]) if is_ban and to > floor]
        if bare:
            return (*min(bare), False)
    return start, end, not ban


def deliver(items: Sequence[Listed], text: str) -> str:
    """What is left of a finished text when every phrase is cut and a stop ends it."""
    floor = 0
    while (hit := first_hit(items, text, floor)) is not None:
        start, end, stop = hit
        if stop:
            return text[:start]
        floor = max(floor, exposed(items, text, {start}))
        text = cut(text, start, end)
    return text


def cut(text: str, start: int, end: int) -> str:
    """Without ``[start, end)``, and with one blank at most where it was."""
    if end - start > 1 and text[start] in BLANKS and text[end - 1] in BLANKS:
        end -= 1
    if text[end : end + 1] and text[end] in BLANKS and (not start or text[start - 1].isspace()):
        end += 1
    return text[:start] + text[end:]

"""The guard's promise, said slowly: every question is answered over the whole text, by trying everything."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from personas.snapshot import PhraseRule

BLANKS = " \t\u00a0\u202f"
# The forms that the texts of the tests are made of, written out once more.
SAME = {"’": "'", "‘": "'", "ʼ": "'", "″": '"', "“": '"', "”": '"', "\u00a0": " ", "\u202f": " ", "\u2010": "-",
        "\u2011": "-"}  # fmt: skip
NEWLINES = "\n\r\u2028\u2029"
HIDDEN = "\u200b\u200c\u200d\u2060\u00ad\ufe0f"
JOINER, SELECTOR, TONES = "\u200d", "\ufe0f", "🏻🏽"
PICTURES = "😀👍👩👧❤"
FLAGS = "🇩🇪🇫"
LABEL, STOP, BAN, WORD = range(4)


def continues(char: str) -> bool:
    """A mark, or a part of a Hangul syllable behind its first."""
    return unicodedata.category(char)[0] == "M" or "\u1160" <= char <= "\u11ff"


@lru_cache(maxsize=4096)
def seen(text: str, cased: bool) -> list[tuple[str, int]]:
    """The code points that a reader sees, canonically decomposed and ordered, with the place of the character that
    each stands for."""
    pairs: list[tuple[str, int]] = []
    for index, char in enumerate(text):
        if char not in HIDDEN:
            parts = unicodedata.normalize("NFD", char)
            if not cased:
                folded = "".join(part if part == "\u0345" else part.casefold() for part in parts)
                parts = unicodedata.normalize("NFD", folded)
            pairs += [(SAME.get(part, part), index) for part in parts]
    units = [unit for unit, _ in pairs]
    for end in range(1, len(units) + 1):  # bubble a mark down to its place
        at = end - 1
        while at and 0 < unicodedata.combining(units[at]) < unicodedata.combining(units[at - 1]):
            units[at - 1 : at + 1] = units[at], units[at - 1]
            at -= 1
    return list(zip(units, (index for _, index in pairs), strict=True))


def in_word(text: str, index: int) -> bool:
    while 0 <= index < len(text) and (text[index] in HIDDEN or unicodedata.category(text[index])[0] == "M"):
        index -= 1
    return 0 <= index < len(text) and (SAME.get(text[index], text[index]).isalnum() or text[index] == "_")


def next_seen(text: str, index: int) -> int:
    while index < len(text) and text[index] in HIDDEN:
        index += 1
    return index


def on_new_line(text: str, index: int) -> bool:
    before = text[:index].rstrip(BLANKS + HIDDEN)
    return not before or before[-1] in NEWLINES


def at_beginning(text: str, index: int) -> bool:
    return not text[:index].strip(BLANKS + HIDDEN + NEWLINES)


@dataclass(frozen=True)
class Listed:
    """A rule, or a text that stops the reply or is taken off it. ``where``: line, later line, or beginning."""

    text: str
    kind: int
    cased: bool = False
    where: str = ""
    spared: frozenset[str] = frozenset()

    @property
    def units(self) -> list[str]:
        return [unit for unit, _ in seen(self.text, self.cased)]

    @property
    def waits(self) -> bool:
        """Whether what follows decides about the end of a match."""
        last = self.units[-1]
        sign = unicodedata.category(last)[0] in "PZC" or (last.isascii() and not last.isalnum() and last not in "<=>")
        return self.kind == WORD or (self.kind == BAN and not sign)

    def may_start(self, text: str, start: int) -> bool:
        if self.where:
            later = not at_beginning(text, start)
            return {"line": on_new_line(text, start), "later": later and on_new_line(text, start),
                    "beginning": not later}[self.where]  # fmt: skip
        if self.kind == STOP:
            return True
        if continues(self.units[0]):
            before = text[:start].rstrip(HIDDEN)
            return continues(text[start]) and (not before or before[-1] in NEWLINES)
        if self.kind == WORD:
            return not in_word(text, start - 1)
        return self.units[0] not in FLAGS or (len(text[:start]) - len(text[:start].rstrip(FLAGS))) % 2 == 0

    def begin(self, text: str, start: int) -> int:
        """The place behind the first letter of a phrase inside a word: that letter is the word's."""
        inside = start and text[start - 1 : start + 1].isascii() and text[start - 1 : start + 1].isalpha()
        return start + 1 if inside and self.units[0] in self.spared else start

    def taken_along(self, text: str, start: int, end: int) -> int:
        """The end of a match with the rest of the emoji that it ends with."""
        if self.units[-1] not in PICTURES + FLAGS + TONES or self.kind == STOP:
            return end
        for at in range(end, len(text)):
            char, before = text[at], text[start:at]
            if char in FLAGS:
                joined = (len(before) - len(before.rstrip(FLAGS))) % 2 == 1
            elif char in PICTURES:
                joined = before.endswith(JOINER)
            else:
                joined = char in TONES + SELECTOR + JOINER or unicodedata.category(char)[0] == "M"
            if joined:
                end = at + 1
            elif char not in HIDDEN:
                break
        return end

    def occurrences(self, text: str) -> Iterator[tuple[int, int]]:
        """Spans that spell the text, may start where they do and end with a whole letter."""
        found, wanted = seen(text, self.cased), self.units
        for at in range(len(found) - len(wanted) + 1):
            behind = found[at + len(wanted)][0] if at + len(wanted) < len(found) else ""
            if [unit for unit, _ in found[at : at + len(wanted)]] != wanted or not self.may_start(text, found[at][1]):
                continue
            start, end = found[at][1], found[at + len(wanted) - 1][1] + 1
            begin = self.begin(text, start) if end - start > 1 else start
            picture = wanted[-1] in PICTURES + FLAGS + TONES
            if not (self.waits and not picture and behind and continues(behind)):
                yield begin, self.taken_along(text, start, end)

    def may_end(self, text: str, end: int) -> bool:
        after = next_seen(text, end)
        return self.kind != WORD or after == len(text) or not in_word(text, after)

    def partials(self, text: str) -> Iterator[int]:
        """Where a match may have begun that the text's end has not settled."""
        found, wanted = seen(text, self.cased), self.units
        marks = 0
        while marks < len(found) and unicodedata.combining(found[len(found) - 1 - marks][0]):
            marks += 1
        for at in range(len(found)):
            tail = [unit for unit, _ in found[at:]]
            before = tail[: len(tail) - marks] if marks else []  # another mark may have its place before these
            live = len(tail) < len(wanted) and wanted[: len(tail)] == tail
            if len(before) == 1 and self.begin(text, found[at][1]) > found[at][1]:
                before = []  # no listed phrase has a mark on this letter
            if (live or (before and wanted[: len(before)] == before)) and self.may_start(text, found[at][1]):
                yield self.begin(text, found[at][1])
        for start, end in self.occurrences(text):
            if self.waits and next_seen(text, end) == len(text):
                yield start


def spellings(name: str, whole: bool) -> list[str]:
    marked = [
        *(f"{mark}{name}:{mark if whole else ''}" for mark in ("*", "**", "_", "__")),
        *(f"{mark}{name}{mark}:" for mark in ("*", "**", "_", "__")),
    ]
    return [*(f"{name}{gap}{colon}" for gap in ("", " ") for colon in ":："), *marked]


def labels_of(user: str | None, character: str | None) -> list[Listed]:
    """The labels of a conversation."""
    return [
        *(Listed(text, LABEL, where="beginning") for name in ("Assistant", character) if name
          for text in spellings(name, whole=True)),
        *(Listed(text, STOP, where="line") for name in ("User", user) if name for text in spellings(name, whole=False)),
        *(Listed(text, STOP, where="later") for text in spellings("Assistant", whole=False)),
    ]  # fmt: skip


def listed(rules: Sequence[PhraseRule], labels: Sequence[Listed] = (), stops: Sequence[str] = ()) -> list[Listed]:
    return [
        *labels,
        *(Listed(stop, STOP, cased=True) for stop in stops),
        *(
            Listed(
                rule.text,
                WORD if rule.whole_word else BAN,
                rule.case_sensitive,
                spared=spared(rules, rule.case_sensitive),
            )
            for rule in rules
        ),
    ]


def spared(rules: Sequence[PhraseRule], cased: bool) -> frozenset[str]:
    """The letters that may leave inside a word: no listed phrase has a mark on them at its beginning."""
    heads = ["".join(unit for unit, _ in seen(rule.text, cased))[:2] for rule in rules if rule.case_sensitive == cased]
    marked = {head[0] for head in heads if len(head) > 1 and continues(head[1])}
    return frozenset({head[0] for head in heads if head and head[0].isascii() and head[0].isalpha()} - marked)


def matches(items: Sequence[Listed], text: str) -> list[tuple[int, int, int]]:
    """(start, end, kind) of everything listed in a finished text, the one that counts first."""
    return sorted(
        (start, end, item.kind) for item in items for start, end in item.occurrences(text) if item.may_end(text, end)
    )


def clean(items: Sequence[Listed], text: str) -> bool:
    """No phrase stands in this text if it ends here."""
    return not any(kind >= BAN for _, _, kind in matches(items, text))


def held_from(items: Sequence[Listed], text: str) -> int:
    """The first character that an unfinished text without a settled hit must hold: nothing less, nothing more.

    A place where a match may yet start is one the text may be taken back to; a whole-word phrase that ends right there
    is held as well, for nothing but the letter behind it spoils it.
    """
    places = {start for item in items for start in item.partials(text)}
    places |= {start for item in items for start, end in item.occurrences(text) if item.may_end(text, end)}
    return exposed(items, text, places)


def exposed(items: Sequence[Listed], text: str, places: set[int]) -> int:
    """The earliest of ``places`` (default: the end) and of the whole-word phrases that end at one of them."""
    words = sorted(
        ((end, start) for item in items if item.kind == WORD for start, end in item.occurrences(text)), reverse=True
    )
    for end, start in words:
        if any(end <= place <= next_seen(text, end) for place in places):
            places.add(start)
    return min(places, default=len(text))


def first_hit(items: Sequence[Listed], text: str, floor: int = 0) -> tuple[int, int, int] | None:
    """(start, end, kind) of what counts in a finished text whose first ``floor`` characters are out."""
    found = sorted((max(start, floor), end, kind) for start, end, kind in matches(items, text) if end > floor)
    if not found:
        return None
    start, end, kind = found[0]
    if kind == STOP:
        bare = [(max(at, floor), to, is_ban) for at, to, is_ban in matches(items, text[:start]) if is_ban >= BAN]
        bare = [hit for hit in bare if hit[1] > floor]
        if bare:
            return min(bare)
    return start, end, kind


def deliver(items: Sequence[Listed], text: str) -> str:
    """What is left of a finished text when every phrase is cut and a stop ends it."""
    floor = 0
    while (hit := first_hit(items, text, floor)) is not None:
        start, end, kind = hit
        if kind == STOP:
            return text[:start]
        floor = max(floor, exposed(items, text, {start}))
        text = text[:start] + text[end:].lstrip() if kind == LABEL else cut(text, start, end)
    return text


def cut(text: str, start: int, end: int) -> str:
    """Without ``[start, end)``, and with one blank at most where it was."""
    if end - start > 1 and text[start] in BLANKS and text[end - 1] in BLANKS:
        end -= 1
    if text[end : end + 1] and text[end] in BLANKS and (not start or text[start - 1].isspace()):
        end += 1
    return text[:start] + text[end:]

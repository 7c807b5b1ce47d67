"""How much of a reply the user heard, as the client counts characters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class HeardUnit(StrEnum):
    """The client's unit: Unicode code points, or UTF-16 code units (JavaScript's ``length``)."""

    CODE_POINTS = "codepoints"
    UTF16 = "utf16"

    def length_of(self, text: str) -> int:
        """Return the length of ``text`` in this unit."""
        return len(text) if self is HeardUnit.CODE_POINTS else len(text.encode("utf-16-le")) // 2


@dataclass(frozen=True, slots=True)
class Heard:
    """The part of the last reply that the user heard: its first ``length`` characters, counted in ``unit``."""

    length: int
    unit: HeardUnit = HeardUnit.CODE_POINTS

    def code_points_of(self, text: str) -> int:
        """Return the number of code points of ``text`` that were heard. Half a surrogate pair does not count."""
        if self.unit is HeardUnit.CODE_POINTS or self.length == 0:
            return min(self.length, len(text))
        heard = text.encode("utf-16-le")[: 2 * self.length]
        return len(heard.decode("utf-16-le", errors="ignore"))

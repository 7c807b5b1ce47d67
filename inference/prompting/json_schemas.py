"""JSON schemas of clients, bounded by their cost for an engine.

An engine turns a schema into a grammar on the serving loop, compiles the grammar in threads that all requests share,
and asks it for the allowed tokens in each step of all requests. Small texts can be dear there. Measured with xgrammar,
as vLLM 0.32 calls it: ``.?`` 128 times compiles for 52 s, ``.{0,1000}`` adds 30 ms to each step, 800 nested lists hold
the loop for 26 s, and 200 properties of which 30 to 150 may be present compile for 35 s and take 350 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_NODES = 6000
MAX_DEPTH = 24
MAX_CHARS = 256 * 1024
MAX_PROPERTIES = 256  # of one object
MAX_BRANCHES = 128
MAX_DIGITS = 1000  # of all numeric bounds
MAX_PATTERN = 64
MAX_PATTERNS = 256
MAX_LENGTH = 64
"""Longest ``minLength`` and ``maxLength`` that an engine enforces; a longer one is left out."""
MAX_ITEMS = 256
"""The same for numbers of items."""
_DEAR_FORMATS = frozenset({"uri-template"})  # 7 ms in each step
_OPTIONAL = 4  # cost of an atom that may be absent or repeated, in atoms

_COUNTS = {
    "minLength": MAX_LENGTH, "maxLength": MAX_LENGTH, "minItems": MAX_ITEMS, "maxItems": MAX_ITEMS,
    "minProperties": 1, "maxProperties": 1,
}  # fmt: skip
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_BRANCHES = frozenset({"anyOf", "oneOf", "allOf"})


class SchemaTooCostly(ValueError):
    """An engine must not get this schema; the text says why."""


class SchemaBudget:
    """What the schemas of one request may cost together."""

    def __init__(self) -> None:
        self._left = {
            "nodes": MAX_NODES, "characters": MAX_CHARS, "branches": MAX_BRANCHES, "digits of bounds": MAX_DIGITS,
            "patterns": MAX_PATTERNS,
        }  # fmt: skip

    def spend(self, what: str, amount: int = 1) -> None:
        """Take a part of the budget.

        Raises:
            SchemaTooCostly: there is not as much left.
        """
        self._left[what] -= amount
        if self._left[what] < 0:
            raise SchemaTooCostly(f"too many {what}")

    def bounded(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return a schema as an engine may get it: counts above the limits are left out.

        Raises:
            SchemaTooCostly: the schema costs more than is left.
        """
        found: dict[str, Any] = self._copied(schema, 0)
        return found

    def _copied(self, value: Any, depth: int) -> Any:
        self.spend("nodes")
        if depth > MAX_DEPTH:
            raise SchemaTooCostly(f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, str):
            self.spend("characters", len(value))
        if isinstance(value, list):
            return [self._copied(item, depth + 1) for item in value]
        if not isinstance(value, Mapping):
            return value
        return {key: self._copied_keyword(key, item, depth) for key, item in self._kept(value)}

    def _kept(self, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for key, item in schema.items():
            self.spend("characters", len(key))
            most = _COUNTS.get(key)
            dear = _is_number(item) and item > most if most is not None else key == "format" and item in _DEAR_FORMATS
            if not dear:
                yield key, item

    def _copied_keyword(self, key: str, item: Any, depth: int) -> Any:
        if key in _BOUNDS and _is_number(item):
            self.spend("digits of bounds", len(repr(item)))
        elif key == "pattern" and isinstance(item, str):
            self._spend_pattern(item)
        elif key in _BRANCHES and isinstance(item, list):
            self.spend("branches", len(item))
        elif key in ("properties", "patternProperties") and isinstance(item, Mapping):
            if len(item) > MAX_PROPERTIES:
                raise SchemaTooCostly(f"an object with more than {MAX_PROPERTIES} properties")
            if key == "patternProperties":
                for pattern in item:
                    self._spend_pattern(pattern)
            # The names of properties are no keywords.
            return {name: self._copied_property(name, value, depth) for name, value in item.items()}
        return self._copied(item, depth + 1)

    def _copied_property(self, name: str, value: Any, depth: int) -> Any:
        self.spend("characters", len(name))
        return self._copied(value, depth + 2)

    def _spend_pattern(self, pattern: str) -> None:
        cost = pattern_cost(pattern)
        if cost > MAX_PATTERN:
            raise SchemaTooCostly("a pattern that is too long, or repeats too much")
        self.spend("patterns", cost)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def pattern_cost(pattern: str) -> int:
    """Estimate what a regular expression costs: its characters and classes, each as often as it may be repeated.

    Example: ``\\d{4}-\\d{2}`` costs 7, ``(ab?){3}`` 18, ``.{0,10}`` 40. A cost above :data:`MAX_PATTERN` is not exact.
    """
    if len(pattern) > MAX_CHARS:
        return MAX_PATTERN + 1
    open_groups: list[int] = []  # cost of what stands before each open group
    total = last = position = 0  # `last`: cost of the last atom, which is not in `total` yet
    while position < len(pattern) and total + last <= MAX_PATTERN:
        character = pattern[position]
        position += 1
        if character == "(":
            open_groups.append(total + last)
            total, last = 1, 0
        elif character == ")":
            total, last = (open_groups.pop() if open_groups else 0), total + last
        elif character in "*+":
            last *= _OPTIONAL + (character == "+")
        elif character == "?":
            last *= 1 if pattern[position - 2 : position - 1] in ("*", "+", "?", "}", "(") else _OPTIONAL
        elif character == "{" and (found := _repeats(pattern, position)) is not None:
            low, high, position = found
            last *= low + _OPTIONAL * (high - low)
        else:
            total += last
            last = 1
            if character == "\\":
                position += 1
            elif character == "[":
                position = _class_end(pattern, position)
    return total + last + sum(open_groups)


def _repeats(pattern: str, position: int) -> tuple[int, int, int] | None:
    """Return the counts of ``{m}``, ``{m,}`` or ``{m,n}`` and the position behind; None where the text is another."""
    end = pattern.find("}", position, position + 24)
    low, comma, high = pattern[position:end].partition(",") if end >= 0 else ("", "", "")
    if not low.isdecimal() or not (high.isdecimal() or not high):
        return None
    least = int(low)
    most = int(high) if high else least + bool(comma)
    return least, max(least, most), end + 1


def _class_end(pattern: str, position: int) -> int:
    """Return the position behind a class of characters."""
    start = position
    while position < len(pattern) and (pattern[position] != "]" or position == start):
        position += 2 if pattern[position] == "\\" else 1
    return position + 1

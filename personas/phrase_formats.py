"""Phrase lists in the formats that people bring: recognised, and read into entries. Nothing is guessed silently.

JSON: an object ``{"phrase": bias}``; an array of texts, of ``["phrase", number]`` pairs (antislop) or of objects
(SillyTavern's logit bias); the settings of SillyTavern and KoboldCpp with their banned strings; one value a line. Other
text: see ``phrase_lines``. Token ids are refused: they mean nothing without their tokenizer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from personas import phrase_lines
from personas.card_prompt import unix_lines
from personas.phrase_lines import Entry
from personas.phrase_rules import MAX_PHRASES, quoted

_KOBOLD_SEPARATOR = "||$||"
_TEXT_KEYS = ("text", "phrase", "string", "word", "token")
_BIAS_KEYS = ("bias", "logit_bias", "value", "weight")
_NUMBER_KEYS = ("probability", "prob", "prob_adjustment", "adjustment", "count", "frequency", "freq", "score")
_MARKS = ("case_sensitive", "whole_word")
# Keys of settings files whose values hold phrases: a text of lines, or an array.
_CONTAINERS = (
    "banned_strings", "banned_phrases", "banned_tokens", "global_banned_tokens", "tokenbans", "antislop",
    "slop_phrases", "phrases", "bad_words", "logit_bias",
)  # fmt: skip
_JSON_START = re.compile(r'\{\s*["}]|\[\s*(?:["\[{\]]|-?\d|(?:null|true|false)\s*[,\]])')


@dataclass(frozen=True, slots=True)
class Reading:
    """A phrase list as its file says it.

    Args:
        format: The recognised format, for the operator.
        entries: In the order of the file, unchecked.
        is_bias: Whether the format says that the numbers are biases. Otherwise the operator must say.
        is_object: Whether the file is a JSON object of phrases, Yap's own format.
    """

    format: str
    entries: tuple[Entry, ...]
    is_bias: bool = False
    is_object: bool = False

    @property
    def has_numbers(self) -> bool:
        return any(entry.number is not None for entry in self.entries)


def read(text: str) -> Reading:
    """Return the entries of a phrase list.

    Raises:
        ValueError: With a reason that names the line or entry, where the text is no list in a known format.
    """
    text = unix_lines(text)
    if not text.strip():
        raise ValueError("no phrases in it")
    reading = _read(text)
    if not reading.entries:  # an empty array, or settings without banned strings
        raise ValueError("no phrases in it")
    if len(reading.entries) > MAX_PHRASES:
        raise ValueError(f"{len(reading.entries)} phrases; a list holds at most {MAX_PHRASES}")
    if any(entry.number is not None and entry.number < 0 for entry in reading.entries):
        return replace(reading, is_bias=True)  # neither a probability nor a count
    return reading


def _read(text: str) -> Reading:
    if _JSON_START.match(text.lstrip()):
        return _from_json(_parsed(text))
    if _KOBOLD_SEPARATOR in text:
        return Reading("KoboldAI Lite, phrases between ||$||", tuple(_kobold(text)))
    entries, kind, is_bias = phrase_lines.read(text)
    return Reading(kind, entries, is_bias)


def _parsed(text: str) -> Any:
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        values = _json_lines(text)
        if values is not None:
            return values
        raise ValueError(f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"not JSON: {reason}") from None


def _json_lines(text: str) -> list[Any] | None:
    """The values of a file with one JSON value a line (a comma may follow); None for any other file."""
    values = []
    for line in text.split("\n"):
        if stripped := line.strip().removesuffix(","):
            try:
                values.append(_loads(stripped))
            except (RecursionError, ValueError):
                return None
    return values


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, in order: a phrase that stands twice must be seen."""


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant)


def _from_json(value: Any) -> Reading:
    if isinstance(value, _Pairs):
        return _from_object(value)
    if isinstance(value, list):
        return _from_array(value, "array")
    raise ValueError("a phrase list in JSON is an object or an array")


def _from_object(pairs: _Pairs) -> Reading:
    settings = [(key, value) for key, value in pairs if key.lower() in _CONTAINERS and isinstance(value, str | list)]
    if not settings:  # KoboldAI Lite keeps its settings one level deeper
        inner = [value for key, value in pairs if key in ("savedsettings", "settings") and isinstance(value, _Pairs)]
        settings = [pair for value in inner for pair in value if pair[0].lower() in _CONTAINERS]
    if settings:
        readings = [_from_setting(value) for _, value in settings if value]
        entries = tuple(entry for reading in readings for entry in reading.entries)
        names = ", ".join(key for key, _ in settings)
        return Reading(f"settings file ({names})", entries, any(reading.is_bias for reading in readings))
    if pairs and all(key.isdecimal() and not isinstance(value, _Pairs) for key, value in pairs):
        raise ValueError("the keys are token ids, which only fit one tokenizer: write phrases")
    entries = tuple(_rule(number, phrase, value) for number, (phrase, value) in enumerate(pairs, 1))
    marked = any(isinstance(value, _Pairs) for _, value in pairs)
    return Reading('JSON object {"phrase": number}', entries, is_bias=marked, is_object=True)


def _from_setting(value: Any) -> Reading:
    if isinstance(value, str):
        return _read(value)
    if isinstance(value, _Pairs):
        return _from_object(value)
    if isinstance(value, list):
        return _from_array(value, "array")
    raise ValueError("the banned strings of the settings are neither text nor an array")


def _from_array(values: Iterable[Any], kind: str) -> Reading:
    entries, kinds, is_bias = [], set(), False
    for number, value in enumerate(values, 1):
        place = f"entry {number}"
        if isinstance(value, str):
            entries.append(Entry(value, place=place))
            kinds.add("texts")
        elif isinstance(value, _Pairs):
            entry, biased = _from_entry(dict(value), place)
            entries.append(entry)
            is_bias = is_bias or biased
            kinds.add("objects")
        elif isinstance(value, list):
            entries.append(_pair(value, place))
            kinds.add("pairs")
        else:
            raise ValueError(f"{place} ({json.dumps(value)[:40]}): neither a phrase nor a pair; token ids are refused")
    return Reading(f"JSON {kind} of {' and '.join(sorted(kinds)) or 'nothing'}", tuple(entries), is_bias)


def _pair(value: list[Any], place: str) -> Entry:
    texts = [part for part in value if isinstance(part, str)]
    numbers = [part for part in value if not isinstance(part, str)]
    if len(texts) != 1 or len(numbers) > 1:
        raise ValueError(f'{place} ({json.dumps(value)[:40]}): not a pair ["phrase", number]')
    return Entry(texts[0], _number(numbers[0], place) if numbers else None, place=place)


def _from_entry(value: dict[str, Any], place: str) -> tuple[Entry, bool]:
    """An object of an array, and whether its number is named as a bias."""
    lowered = {key.lower(): each for key, each in value.items()}
    key = next((key for key in _TEXT_KEYS if key in lowered), None)
    text = lowered.get(key) if key else None
    if not isinstance(text, str):
        reason = (
            "token ids are refused" if isinstance(text, int | list) else f"none of {', '.join(_TEXT_KEYS)} is in it"
        )
        raise ValueError(f"{place}: no phrase ({reason})")
    if "id" in lowered and "value" in lowered:  # SillyTavern: {text} is verbatim, [1, 2] are token ids
        if text.startswith("[") and text.endswith("]"):
            raise ValueError(f"{place} ({quoted(text)}): token ids, which only fit one tokenizer")
        if text.startswith("{") and text.endswith("}"):
            text = text[1:-1]
    name = next((name for name in (*_BIAS_KEYS, *_NUMBER_KEYS) if lowered.get(name) is not None), None)
    number = _number(lowered[name], place) if name else None
    return Entry(text, number, **_marks(lowered, place), place=place), name in _BIAS_KEYS


def _rule(number: int, phrase: str, value: Any) -> Entry:
    """A pair of the native format, whose value is a number or ``{"bias": …, "case_sensitive": …, "whole_word": …}``."""
    place = f"entry {number}"
    if not isinstance(value, _Pairs):
        return Entry(phrase, _number(value, f"phrase {quoted(phrase)}"), place=place)
    fields = dict(value)
    if unknown := fields.keys() - {"bias", *_MARKS}:
        raise ValueError(f"phrase {quoted(phrase)}: unknown {quoted(min(unknown))}")
    bias = _number(fields["bias"], f"phrase {quoted(phrase)}") if "bias" in fields else None
    return Entry(phrase, bias, **_marks(fields, f"phrase {quoted(phrase)}"), place=place)


def _marks(fields: dict[str, Any], place: str) -> dict[str, bool]:
    if not all(isinstance(fields.get(mark, False), bool) for mark in _MARKS):
        raise ValueError(f"{place}: case_sensitive and whole_word are true or false")
    return {mark: fields.get(mark, False) for mark in _MARKS}


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise ValueError(f"{place}: the bias must be a number")
    return float(value)


def _is_finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _kobold(text: str) -> Iterator[Entry]:
    for number, phrase in enumerate(text.strip("\n").split(_KOBOLD_SEPARATOR), 1):
        if phrase:
            yield Entry(phrase, place=f"entry {number}")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")

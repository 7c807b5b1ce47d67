"""Phrase lists as lines of text: CSV with a header, quoted lines, lines with a number, list marks, plain lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from personas.phrase_rules import MAX_PHRASE_CHARS, is_visible, quoted

_TEXT_COLUMNS = ("phrase", "phrases", "text", "string", "word", "words", "token")
_BIAS_COLUMNS = ("bias", "logit_bias", "weight", "value")
_NUMBER_COLUMNS = ("probability", "prob", "adjustment", "count", "frequency", "freq", "score", "number")
_OTHER_COLUMNS = ("id", "rank", "note", "notes", "comment", "category", "case_sensitive", "whole_word")
_MAX_LINE_CHARS = 4096  # a phrase and the other columns of a CSV file
_TRUE = ("1", "true", "yes", "on")
_NUMBER = r"[-+]?\d{1,15}(?:\.\d{1,20})?(?:[eE][-+]?\d{1,3})?"
_QUOTED = re.compile(rf'\s*"((?:[^"\\]|\\.|"")*)"\s*(?:[,;:=\t]\s*({_NUMBER}))?\s*,?\s*')
_OTHER_QUOTES = (re.compile(r"\s*“([^“”]*)”\s*,?\s*"), re.compile(r"\s*'([^']*)'\s*,?\s*"))
_NUMBERED = re.compile(rf"(.*\S)\s*[:=,;\t]\s*({_NUMBER})\s*")
_MARKS = (re.compile(r"[-*•]\s+(.*)"), re.compile(r"\d{1,6}[.)]\s+(.*)"))
_SYNTAX = re.compile(r'[\s\[\]{},"]+|\s*(?:[\[{]\s*)*"[^"]*"\s*[\]},:].*')
_TOKEN_IDS = re.compile(r"\s*\[\s*\d+(?:\s*,\s*\d+)*\s*\]\s*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One phrase of an imported list.

    Args:
        text: Unchecked; white space around the text belongs to the phrase.
        number: The number beside the phrase, whatever it means. None: there is none.
        place: The line or entry of the file, for messages.
    """

    text: str
    number: float | None = None
    case_sensitive: bool = False
    whole_word: bool = False
    place: str = ""


Result = tuple[tuple[Entry, ...], str, bool]  # entries, format, whether the numbers are biases
_Lines = list[tuple[int, str]]  # line number, line


def read(text: str) -> Result:
    """Return the entries of a text, the name of its format, and whether the format says that numbers are biases.

    Args:
        text: With ``\\n`` line ends.

    Raises:
        ValueError: With a reason that names the line.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line]
    for number, line in lines:
        if len(line) > _MAX_LINE_CHARS:  # before any pattern looks at the line
            raise ValueError(f"line {number} ({quoted(line)}): the phrase is longer than {MAX_PHRASE_CHARS} characters")
    readers: tuple[Callable[[str, _Lines], Result | None], ...] = (_csv, _quoted, _numbered, _listed)
    for reader in readers:
        result = reader(text, lines)
        if result is not None:
            return result
    return _plain(lines)


def _csv(text: str, lines: _Lines) -> Result | None:
    header = lines[0][1].strip().lower()
    delimiter = next((mark for mark in ("\t", ";", ",") if mark in header), ",")
    columns = [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter), [])]
    known = (*_TEXT_COLUMNS, *_BIAS_COLUMNS, *_NUMBER_COLUMNS, *_OTHER_COLUMNS)
    at = next((index for index, name in enumerate(columns) if name in _TEXT_COLUMNS), None)
    if at is None or not all(name in known for name in columns) or (len(columns) == 1 and columns[0][:6] != "phrase"):
        return None
    number_at = next((index for index, name in enumerate(columns) if name in _BIAS_COLUMNS + _NUMBER_COLUMNS), None)
    entries = []
    reader = csv.reader(text.lstrip("\n").split("\n"), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            place = f"line {reader.line_num}"
            if reader.line_num == 1 or not any(row):
                continue
            if len(row) > len(columns) or len(row) <= at or not row[at]:
                raise ValueError(
                    f"{place}: {len(row)} columns, and the header has {len(columns)} ({', '.join(columns)})"
                )
            cells = dict(zip(columns, row, strict=False))
            number = row[number_at].strip() if number_at is not None and len(row) > number_at else ""
            if number and not re.fullmatch(_NUMBER, number):
                raise ValueError(f"{place}: {quoted(number)} is not a number")
            marks = {mark: cells.get(mark, "").strip().lower() in _TRUE for mark in ("case_sensitive", "whole_word")}
            entries.append(Entry(row[at], float(number) if number else None, **marks, place=place))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: not CSV ({error})") from None
    is_bias = number_at is not None and columns[number_at] in _BIAS_COLUMNS
    return tuple(entries), f"CSV with the columns {', '.join(columns)}", is_bias


def _quoted(_text: str, lines: _Lines) -> Result | None:
    found = [_QUOTED.fullmatch(line) for _, line in lines]
    if all(found):
        entries = tuple(
            Entry(_unquoted(match[1], number), float(match[2]) if match[2] else None, place=f"line {number}")
            for match, (number, _) in zip(found, lines, strict=True)
            if match is not None
        )
        return entries, "quoted lines", False
    for pattern in _OTHER_QUOTES:
        others = [pattern.fullmatch(line) for _, line in lines]
        if all(others):
            texts = [match[1] for match in others if match is not None]
            numbered = zip(texts, lines, strict=True)
            return tuple(Entry(text, place=f"line {number}") for text, (number, _) in numbered), "quoted lines", False
    if not any(match is not None and not match[2] for match in found):
        return None
    # SillyTavern's banned strings: a line in quotes is a string, in brackets token ids, else raw text.
    entries_list = []
    for match, (number, line) in zip(found, lines, strict=True):
        if match is not None and not match[2]:
            entries_list.append(Entry(_unquoted(match[1], number), place=f"line {number}"))
        else:
            entries_list.append(_plain_entry(number, line))
    return tuple(entries_list), "lines, some of them quoted (SillyTavern)", False


def _unquoted(text: str, number: int) -> str:
    if "\\" not in text:
        return text.replace('""', '"')
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        raise ValueError(f"line {number}: {quoted(text)} has a broken escape") from None


def _numbered(_text: str, lines: _Lines) -> Result | None:
    found = [_NUMBERED.fullmatch(line) for _, line in lines]
    count = sum(match is not None for match in found)
    if count == len(lines):
        entries = [
            Entry(_stripped_quotes(match[1]), float(match[2]), place=f"line {number}")
            for match, (number, _) in zip(found, lines, strict=True)
            if match is not None
        ]
        return tuple(entries), "lines with a number: phrase: number", False
    if count >= 3 and count > 0.8 * len(lines):
        number, line = next(pair for match, pair in zip(found, lines, strict=True) if match is None)
        raise ValueError(f"line {number} ({quoted(line)}) has no number, and {count} other lines have one")
    return None


def _stripped_quotes(text: str) -> str:
    match = _QUOTED.fullmatch(text)
    return match[1].replace('""', '"') if match is not None and not match[2] else text


def _listed(_text: str, lines: _Lines) -> Result | None:
    for pattern in _MARKS:
        found = [pattern.fullmatch(line) for _, line in lines]
        if len(lines) > 1 and all(found):
            entries = [
                Entry(match[1].rstrip(), place=f"line {number}")
                for match, (number, _) in zip(found, lines, strict=True)
                if match is not None
            ]
            return tuple(entries), "lines with list marks", False
    return None


def _plain(lines: _Lines) -> Result:
    return tuple(_plain_entry(number, line) for number, line in lines), "one phrase a line", False


def _plain_entry(number: int, line: str) -> Entry:
    if not any(map(is_visible, line)):
        raise ValueError(f"line {number}: the phrase is only white space")
    if _TOKEN_IDS.fullmatch(line):
        raise ValueError(f"line {number} ({quoted(line)}): token ids, which only fit one tokenizer")
    if _SYNTAX.fullmatch(line):
        raise ValueError(
            f"line {number} ({quoted(line)}) looks like a part of a JSON or CSV file, which was not recognised"
        )
    return Entry(line, place=f"line {number}")

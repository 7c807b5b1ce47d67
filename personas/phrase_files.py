"""Phrase lists as files: ``CHAT_LOGIT_BIAS_FILE``, and exports as JSON or plain text."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from personas import phrase_formats
from personas.phrase_import import NumberMeaning, preview, suggested_meaning
from personas.phrase_rules import check_rules, quoted
from personas.snapshot import BAN_BIAS, PhraseRule

MAX_FILE_BYTES = 10 * 2**20
_EMPTY = re.compile(r"\s*(?:\{\s*\}|\[\s*\])\s*")
_MARKS = ("case_sensitive", "whole_word")


def parse(text: str) -> tuple[PhraseRule, ...]:
    """Return the rules of a list in any format of ``phrase_formats`` that leaves no question open.

    An empty JSON object or array is an empty list: as ``CHAT_LOGIT_BIAS_FILE``, the built-in list without its phrases.

    Raises:
        ValueError: With one line: the reason, or that the numbers could be biases, probabilities or counts.
    """
    if _EMPTY.fullmatch(text):
        return ()
    reading = phrase_formats.read(text)
    meaning = NumberMeaning.BIAS if reading.is_object else suggested_meaning(reading)
    if reading.has_numbers and meaning is not NumberMeaning.BIAS:
        raise ValueError(
            f"{reading.format}: the numbers could be biases, probabilities or counts; the admin's import asks"
        )
    found = preview(reading, meaning)
    if found.duplicates:
        raise ValueError(f"{quoted(found.duplicates[0])} is a duplicate")
    return check_rules(found.rules)


def decode(data: bytes) -> str:
    """Return the text of a file. Raises ``ValueError`` where the file is too large, or neither UTF-8 nor UTF-16."""
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding[:6].upper().rstrip('-')} text (byte {error.start})") from None


def dump_json(rules: Sequence[PhraseRule]) -> str:
    """Return ``{"phrase": bias}``, which :func:`parse` reads back to equal rules.

    Raises:
        ValueError: One text is listed twice, with and without its case; an object has a key once.
    """
    values: dict[str, Any] = {}
    like_token_ids = all(rule.text.isdecimal() for rule in rules)  # {"50256": -100} would be refused
    for rule in rules:
        if rule.text in values:
            raise ValueError(f"{quoted(rule.text)} is listed twice, with and without its case: JSON can keep only one")
        bias = int(rule.bias) if rule.bias == int(rule.bias) else rule.bias
        marks = {mark: True for mark in _MARKS if getattr(rule, mark)}
        values[rule.text] = {"bias": bias, **marks} if marks or like_token_ids else bias
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


def dump_lines(rules: Sequence[PhraseRule]) -> str:
    """Return one phrase a line, which :func:`parse` reads back to equal rules.

    Raises:
        ValueError: A phrase has a bias, a mark or a line break, or would be read as another format.
    """
    for rule in rules:
        if rule != PhraseRule(rule.text, BAN_BIAS) or "\n" in rule.text or "\r" in rule.text:
            raise ValueError(
                f"{quoted(rule.text)} has a bias, a mark or a line break: plain text cannot keep it, JSON can"
            )
    text = "".join(f"{rule.text}\n" for rule in rules)
    try:
        same = not rules or parse(text) == tuple(rules)
    except ValueError:
        same = False
    if not same:
        raise ValueError("the phrases would be read as another format from plain text: JSON can keep them")
    return text


def load_phrase_file(path: Path) -> tuple[PhraseRule, ...]:
    """Return the rules of a ``CHAT_LOGIT_BIAS_FILE``. Raises ``ValueError`` with one line that names the file."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:  # before reading: the path may name anything
            raise ValueError(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
        return parse(decode(path.read_bytes()))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None

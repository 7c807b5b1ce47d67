"""Phrase lists as text: JSON ``{"phrase": bias}`` and one phrase a line, read with refusals that name the place.

Plain Python. A JSON value is a bias, or ``{"bias": -100, "case_sensitive": true, "whole_word": true}`` where a phrase
has marks of its own. Spaces around a phrase belong to it (``" - "`` is not ``"-"``).
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from personas.snapshot import BAN_BIAS, PhraseRule
from personas.text_forms import fold_case, fold_form, is_text

MIN_BIAS, MAX_BIAS = -100.0, 100.0
MAX_PHRASE_CHARS = 300
MAX_PHRASES = 10_000  # in one list
MAX_FILE_BYTES = 4 * 2**20
MAX_TOKEN_BIASES = 300  # phrases above −100 in force at once; an engine takes about 1,024 biased tokens
_MARKS = ("case_sensitive", "whole_word")


def phrase_key(text: str, case_sensitive: bool = False) -> str:
    """Return the key that equal phrases share: the forms of ``personas.text_forms``, case folded unless it matters."""
    return f"={fold_form(text)}" if case_sensitive else f"~{fold_case(text)}"


def check_rule(rule: PhraseRule) -> None:
    """Raises :class:`ValueError` with the reason a phrase cannot be listed."""
    if not rule.text:
        raise ValueError("the phrase is empty")
    if not is_text(rule.text):
        raise ValueError("the phrase contains characters that are not text")
    if not any(_visible(character) for character in rule.text):
        raise ValueError("the phrase is only white space")
    if len(rule.text) > MAX_PHRASE_CHARS:
        raise ValueError(f"the phrase is longer than {MAX_PHRASE_CHARS} characters")
    if not MIN_BIAS <= rule.bias <= MAX_BIAS:  # NaN fails this too
        raise ValueError(f"the bias must be between {MIN_BIAS:g} and {MAX_BIAS:g}")


def check_rules(rules: Iterable[PhraseRule]) -> tuple[PhraseRule, ...]:
    """The rules as they are. Raises :class:`ValueError` naming the first that is refused, and why."""
    seen: dict[str, str] = {}
    checked = tuple(rules)
    if len(checked) > MAX_PHRASES:
        raise ValueError(f"{len(checked)} phrases; a list holds at most {MAX_PHRASES}")
    for number, rule in enumerate(checked, 1):
        try:
            check_rule(rule)
        except ValueError as error:
            raise ValueError(f"phrase {number} ({_shown(rule.text)}): {error}") from None
        key = phrase_key(rule.text, rule.case_sensitive)
        if key in seen:
            raise ValueError(f"phrase {number} ({_shown(rule.text)}): a duplicate of {_shown(seen[key])}")
        seen[key] = rule.text
    biased = sum(not rule.banned for rule in checked)
    if biased > MAX_TOKEN_BIASES:
        raise ValueError(f"{biased} phrases have a bias above {BAN_BIAS:g}; at most {MAX_TOKEN_BIASES} may")
    return checked


def parse_json(text: str) -> tuple[PhraseRule, ...]:
    """The rules of a JSON object, in its order. Raises :class:`ValueError` with one line."""
    try:
        # Pairs, not a dict: a phrase that is given twice must be seen, not swallowed.
        document = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"not JSON: {reason}") from None
    if not isinstance(document, _Pairs):
        raise ValueError('a phrase list is one JSON object: {"phrase": bias}')
    return check_rules(_rule(phrase, value) for phrase, value in document)


def parse_lines(text: str) -> tuple[PhraseRule, ...]:
    """One banned phrase a line; lines with nothing at all are skipped. Raises :class:`ValueError` with one line."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        if line and not any(_visible(character) for character in line):
            raise ValueError(f"line {number}: the phrase is only white space")
    rules = check_rules(PhraseRule(line) for line in lines if line)
    if not rules:
        raise ValueError("no phrases in it")
    return rules


def parse(text: str) -> tuple[PhraseRule, ...]:
    """Either format: what starts with ``{`` and ends with ``}`` is JSON, anything else is lines."""
    stripped = text.strip()
    is_json = stripped.startswith("{") and stripped.endswith("}")
    return parse_json(text) if is_json else parse_lines(text)


def decode(data: bytes) -> str:
    """A file's bytes as text. Raises :class:`ValueError` where it is too large or not UTF-8."""
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start})") from None


def dump_json(rules: Sequence[PhraseRule]) -> str:
    """``{"phrase": bias}``, which :func:`parse_json` reads back to equal rules.

    Raises :class:`ValueError` where one text is listed twice, with and without its case: an object has it once.
    """
    values: dict[str, Any] = {}
    for rule in rules:
        if rule.text in values:
            raise ValueError(f"{_shown(rule.text)} is listed twice, with and without its case: JSON can keep only one")
        bias = int(rule.bias) if rule.bias == int(rule.bias) else rule.bias
        marks = {mark: True for mark in _MARKS if getattr(rule, mark)}
        values[rule.text] = {"bias": bias, **marks} if marks else bias
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


def dump_lines(rules: Sequence[PhraseRule]) -> str:
    """One phrase a line. Raises :class:`ValueError` for what lines cannot say: a bias, a mark, a line break."""
    for rule in rules:
        if rule != PhraseRule(rule.text) or "\n" in rule.text or "\r" in rule.text:
            raise ValueError(
                f"{_shown(rule.text)} has a bias, a mark or a line break: plain text cannot keep it, JSON can"
            )
    return "".join(f"{rule.text}\n" for rule in rules)


def load_phrase_file(path: Path) -> tuple[PhraseRule, ...]:
    """The rules of a ``CHAT_LOGIT_BIAS_FILE``. Raises :class:`ValueError` with one line that names the file."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:  # before reading: it may be anything
            raise ValueError(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
        return parse_json(decode(path.read_bytes()))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, in order."""


def _rule(phrase: str, value: Any) -> PhraseRule:
    marks = dict(value) if isinstance(value, _Pairs) else {"bias": value}
    unknown = marks.keys() - {"bias", *_MARKS}
    if unknown:
        raise ValueError(f"phrase {_shown(phrase)}: unknown {_shown(min(unknown))}")
    bias = marks.get("bias", BAN_BIAS)
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not _finite(bias):
        raise ValueError(f"phrase {_shown(phrase)}: the bias must be a number")
    if not all(isinstance(marks.get(mark, False), bool) for mark in _MARKS):
        raise ValueError(f"phrase {_shown(phrase)}: case_sensitive and whole_word are true or false")
    return PhraseRule(phrase, float(bias), **{mark: marks.get(mark, False) for mark in _MARKS})


def _finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _visible(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf", "Zs")


def _shown(text: str) -> str:
    return ascii(text[:40]) if any("\ud800" <= c <= "\udfff" for c in text[:40]) else repr(text[:40])


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")

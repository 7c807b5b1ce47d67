"""Limits of phrase lists, and the checks that every listed phrase passes. Plain Python, no Django."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from personas.snapshot import BAN_BIAS, PhraseRule
from personas.text_forms import fold_case, fold_form, is_text

MIN_BIAS, MAX_BIAS = -100.0, 100.0
MAX_PHRASE_CHARS = 300
MAX_PHRASES = 100_000  # in one list
MAX_TOKEN_BIASES = 300  # phrases above −100 in force at once; an engine takes about 1,024 biased tokens


def phrase_key(text: str, case_sensitive: bool = False) -> str:
    """Return the key that equal phrases share: the forms of ``personas.text_forms``, case folded unless it matters."""
    return f"={fold_form(text)}" if case_sensitive else f"~{fold_case(text)}"


def is_visible(character: str) -> bool:
    """Return whether a reader sees the character: no white space, control or format character."""
    return not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf", "Zs")


def quoted(text: str) -> str:
    """Return the first 40 characters of a text in quotes, for messages."""
    return repr(text[:40]) if is_text(text[:40]) else ascii(text[:40])


def check_rule(rule: PhraseRule) -> None:
    """Raise ``ValueError`` with the reason a phrase cannot be listed."""
    if not rule.text:
        raise ValueError("the phrase is empty")
    if not is_text(rule.text):
        raise ValueError("the phrase contains characters that are not text")
    if not any(map(is_visible, rule.text)):
        raise ValueError("the phrase is only white space")
    if len(rule.text) > MAX_PHRASE_CHARS:
        raise ValueError(f"the phrase is longer than {MAX_PHRASE_CHARS} characters")
    if not fold_form(rule.text).strip():
        raise ValueError("the phrase is invisible")
    if not MIN_BIAS <= rule.bias <= MAX_BIAS:  # NaN fails this too
        raise ValueError(f"the bias must be between {MIN_BIAS:g} and {MAX_BIAS:g}")


def check_rules(rules: Iterable[PhraseRule]) -> tuple[PhraseRule, ...]:
    """Return the rules unchanged.

    Raises:
        ValueError: With the first rule that is refused, and the reason; or where there are too many rules.
    """
    seen: dict[str, str] = {}
    checked = tuple(rules)
    if len(checked) > MAX_PHRASES:
        raise ValueError(f"{len(checked)} phrases; a list holds at most {MAX_PHRASES}")
    for number, rule in enumerate(checked, 1):
        try:
            check_rule(rule)
        except ValueError as error:
            raise ValueError(f"phrase {number} ({quoted(rule.text)}): {error}") from None
        key = phrase_key(rule.text, rule.case_sensitive)
        if key in seen:
            raise ValueError(f"phrase {number} ({quoted(rule.text)}): a duplicate of {quoted(seen[key])}")
        seen[key] = rule.text
    biased = sum(not rule.banned for rule in checked)
    if biased > MAX_TOKEN_BIASES:
        raise ValueError(f"{biased} phrases have a bias above {BAN_BIAS:g}; at most {MAX_TOKEN_BIASES} may")
    return checked

"""From the entries of an imported list to rules: the meaning of numbers, duplicates, and a summary to look at."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from personas.card_prompt import unix_lines
from personas.phrase_formats import Reading
from personas.phrase_lines import Entry
from personas.phrase_rules import check_rule, phrase_key, quoted
from personas.snapshot import BAN_BIAS, PhraseRule


class NumberMeaning(StrEnum):
    """What the number beside a phrase stands for."""

    IGNORED = "ignored"
    BIAS = "bias"
    PROBABILITY = "probability"


@dataclass(frozen=True, slots=True)
class Preview:
    """What an import would save.

    Args:
        rules: In the order of the file, without duplicates.
        duplicates: Texts left out because the file has an equal phrase before them.
        known: Texts left out because the list has an equal phrase.
    """

    rules: tuple[PhraseRule, ...]
    duplicates: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    @property
    def banned(self) -> int:
        return sum(rule.banned for rule in self.rules)

    @property
    def biased(self) -> int:
        return len(self.rules) - self.banned


def suggested_meaning(reading: Reading) -> NumberMeaning:
    """Return the meaning to offer first: a bias where the format says so, else none, so that phrases are banned."""
    return NumberMeaning.BIAS if reading.is_bias else NumberMeaning.IGNORED


def preview(
    reading: Reading, meaning: NumberMeaning, *, whole_word: bool = False, known_keys: Collection[str] = ()
) -> Preview:
    """Return the rules that an import would save.

    Args:
        meaning: Of the numbers. A probability p becomes the bias ln(p), which multiplies the odds of the phrase's
            tokens by p; a probability of 0 bans the phrase.
        whole_word: Whether every phrase matches whole words only.
        known_keys: Keys (``phrase_key``) that the list has already.

    Raises:
        ValueError: With the place and the reason, where a phrase or a number cannot be used.
    """
    rules: dict[str, PhraseRule] = {}
    duplicates, known = [], []
    for entry in reading.entries:
        rule = PhraseRule(
            unix_lines(entry.text), _bias(entry, meaning), entry.case_sensitive, entry.whole_word or whole_word
        )
        try:
            check_rule(rule)
        except ValueError as error:
            raise ValueError(f"{entry.place} ({quoted(entry.text)}): {error}") from None
        key = phrase_key(rule.text, rule.case_sensitive)
        if key in rules:
            duplicates.append(rule.text)
        elif key in known_keys:
            known.append(rule.text)
        else:
            rules[key] = rule
    return Preview(tuple(rules.values()), tuple(duplicates), tuple(known))


def _bias(entry: Entry, meaning: NumberMeaning) -> float:
    number = entry.number
    if number is None or meaning is NumberMeaning.IGNORED:
        return BAN_BIAS
    if meaning is NumberMeaning.BIAS:
        return number
    if not 0 <= number <= 1:
        raise ValueError(f"{entry.place} ({quoted(entry.text)}): {number:g} is no probability from 0 to 1")
    return max(math.log(number), BAN_BIAS) if number > 0 else BAN_BIAS

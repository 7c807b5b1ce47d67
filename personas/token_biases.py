"""Bounds on the token biases in force at once, since an engine takes a limited number.

A phrase with a bias above −100 biases its tokens. Phrases are counted always, their tokens where a tokenizer is loaded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from django.core.exceptions import ValidationError

from personas import tokens
from personas.models import Persona, Phrase, PhraseList
from personas.phrase_rules import MAX_TOKEN_BIASES
from personas.snapshot import BAN_BIAS


def biased_texts(phrase_list: PhraseList) -> list[str]:
    """Return the phrases of a list that are biased, not banned."""
    return list(phrase_list.phrases.filter(bias__gt=BAN_BIAS).values_list("text", flat=True))


def check_list(phrase_list: PhraseList, biased: Sequence[str]) -> None:
    """Raise ``ValidationError`` where a list with these biased phrases would put too many biases in force.

    Args:
        phrase_list: As in memory: its ``enabled`` and ``is_global`` count, not those of the stored row.
        biased: All biased phrases that the list would have.
    """
    texts, shared = _stored(except_list=phrase_list.pk)
    own = list(biased) if phrase_list.enabled else []
    everywhere = [text for pk in shared for text in texts[pk]] + (own if phrase_list.is_global else [])
    _refuse(everywhere)
    for attached in set(map(frozenset, _attached().values())):
        more = own if phrase_list.pk in attached and not phrase_list.is_global else []
        _refuse([*everywhere, *more, *(text for pk in attached - shared for text in texts[pk])])


def check_attached(lists: Iterable[PhraseList]) -> None:
    """Raise ``ValidationError`` where a persona with these lists attached would have too many biases in force."""
    texts, shared = _stored()
    _refuse([text for pk in shared | {phrase_list.pk for phrase_list in lists} for text in texts[pk]])


def _stored(except_list: int | None = None) -> tuple[dict[int, list[str]], set[int]]:
    """The biased phrases of each enabled list by its key, and the keys of the enabled global lists."""
    enabled = PhraseList.objects.filter(enabled=True)
    if except_list is not None:
        enabled = enabled.exclude(pk=except_list)
    texts: dict[int, list[str]] = defaultdict(list)
    biased = Phrase.objects.filter(phrase_list__in=enabled, bias__gt=BAN_BIAS).order_by()
    for phrase_list, text in biased.values_list("phrase_list", "text"):
        texts[phrase_list].append(text)
    return texts, set(enabled.filter(is_global=True).values_list("pk", flat=True))


def _attached() -> dict[int, set[int]]:
    attached: dict[int, set[int]] = defaultdict(set)
    for persona, phrase_list in Persona.phrase_lists.through.objects.values_list("persona_id", "phraselist_id"):
        attached[persona].add(phrase_list)
    return attached


def _refuse(texts: Sequence[str]) -> None:
    if len(texts) > MAX_TOKEN_BIASES:
        raise ValidationError(
            f"{len(texts)} phrases with a bias above {BAN_BIAS:g} would be in force at once, over all lists; "
            f"at most {MAX_TOKEN_BIASES} may be."
        )
    counter = tokens.current()
    if counter is not None and texts and (count := counter.count_biased(texts)) > counter.biased_limit:
        raise ValidationError(
            f"The phrases with a bias above {BAN_BIAS:g} that would be in force at once, over all lists, have {count} "
            f"tokens; an engine takes {counter.biased_limit}."
        )

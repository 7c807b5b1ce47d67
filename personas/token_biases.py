"""How many phrases with a bias above −100 are in force at once: too many would kill an engine, so they are refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from django.core.exceptions import ValidationError
from django.db.models import Count

from personas.models import Persona, Phrase, PhraseList
from personas.phrase_files import MAX_TOKEN_BIASES
from personas.snapshot import BAN_BIAS


def check_list(phrase_list: PhraseList, biased: int) -> None:
    """Raises ``ValidationError`` where this list, as in memory, with so many ``biased`` ones is too much."""
    counts, shared = _stored(except_list=phrase_list.pk)
    own = biased if phrase_list.enabled else 0
    total = sum(counts[pk] for pk in shared) + (own if phrase_list.is_global else 0)
    _refuse_above(total)
    for attached in _attached().values():
        more = own if phrase_list.pk in attached and not phrase_list.is_global else 0
        _refuse_above(total + more + sum(counts[pk] for pk in attached - shared))


def check_attached(lists: Iterable[PhraseList]) -> None:
    """Raises ``ValidationError`` where a persona with these lists attached would have too many."""
    counts, shared = _stored()
    _refuse_above(sum(counts[pk] for pk in shared | {phrase_list.pk for phrase_list in lists}))


def _stored(except_list: int | None = None) -> tuple[dict[int, int], set[int]]:
    """Biased phrases per enabled list, and which enabled lists are global."""
    enabled = PhraseList.objects.filter(enabled=True)
    if except_list is not None:
        enabled = enabled.exclude(pk=except_list)
    biased = Phrase.objects.filter(phrase_list__in=enabled, bias__gt=BAN_BIAS).order_by()
    counts = defaultdict(int, biased.values_list("phrase_list").annotate(Count("pk")))
    return counts, set(enabled.filter(is_global=True).values_list("pk", flat=True))


def _attached() -> dict[int, set[int]]:
    attached: dict[int, set[int]] = defaultdict(set)
    for persona, phrase_list in Persona.phrase_lists.through.objects.values_list("persona_id", "phraselist_id"):
        attached[persona].add(phrase_list)
    return attached


def _refuse_above(total: int) -> None:
    if total > MAX_TOKEN_BIASES:
        raise ValidationError(
            f"{total} phrases with a bias above {BAN_BIAS:g} would be in force at once, over all lists; "
            f"at most {MAX_TOKEN_BIASES} may be."
        )

"""Verbs that write phrase lists. Each raises the versions and announces the change, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import F, QuerySet

from personas import token_biases
from personas.changes import catalogue_changed
from personas.models import Persona, Phrase, PhraseList
from personas.phrase_rules import MAX_PHRASES, check_rules, phrase_key
from personas.snapshot import PhraseRule

_COLUMNS = ("phrase_list_id", "key", "text", "bias", "case_sensitive", "whole_word", "note")


def create_phrase_list(
    name: str, rules: Sequence[PhraseRule] = (), is_global: bool = False, note: str = ""
) -> PhraseList:
    """Return a new list with these phrases. Raises ``ValidationError``."""
    keyed = _keyed(rules)
    with transaction.atomic():
        phrase_list = PhraseList(name=name, note=note, is_global=is_global)
        phrase_list.full_clean()
        phrase_list.save()
        _import(phrase_list, keyed, replace=True)
    return phrase_list


def import_phrases(phrase_list: PhraseList, rules: Sequence[PhraseRule], replace: bool = False) -> int:
    """Add phrases to a list, and return their number.

    Args:
        replace: Whether the phrases replace those of the list. Notes of equal phrases stay.

    Raises:
        ValidationError: A phrase is refused or in the list already, or there would be too many phrases or biases.
    """
    keyed = _keyed(rules)
    with transaction.atomic():
        _import(phrase_list, keyed, replace)
    return len(keyed)


def _keyed(rules: Sequence[PhraseRule]) -> dict[str, PhraseRule]:
    """The checked rules by key. Called before a transaction, whose lock other writers wait for."""
    try:
        check_rules(rules)
    except ValueError as error:
        raise ValidationError(str(error)) from None
    return {phrase_key(rule.text, rule.case_sensitive): rule for rule in rules}


def _import(phrase_list: PhraseList, new: Mapping[str, PhraseRule], replace: bool) -> None:
    PhraseList.objects.select_for_update().filter(pk=phrase_list.pk).first()  # one import at a time
    held = phrase_list.phrases.order_by()
    kept = {key: (text, note) for key, text, note in held.values_list("key", "text", "note")}
    if replace:
        phrase_list.phrases.all().delete()
    elif already := [repr(kept[key][0]) for key in new if key in kept]:
        more = f" and {len(already) - 3} more" if len(already) > 3 else ""
        raise ValidationError(f"In the list already: {', '.join(already[:3])}{more}.")
    elif len(kept) + len(new) > MAX_PHRASES:
        raise ValidationError(f"{len(kept) + len(new)} phrases; a list holds at most {MAX_PHRASES}.")
    _insert(
        (
            phrase_list.pk, key, rule.text, rule.bias, rule.case_sensitive, rule.whole_word,
            kept[key][1] if key in kept else "",
        )
        for key, rule in new.items()
    )  # fmt: skip
    token_biases.check_list(phrase_list, token_biases.biased_texts(phrase_list))
    phrase_list_changed(phrase_list)


def _insert(rows: Iterable[tuple[int, str, str, float, bool, bool, str]]) -> None:
    """Insert rows of ``_COLUMNS``. ``bulk_create`` of 100,000 would hold SQLite's lock for seconds."""
    quote = connection.ops.quote_name
    columns, values = ", ".join(map(quote, _COLUMNS)), ", ".join(["%s"] * len(_COLUMNS))
    with connection.cursor() as cursor:
        statement = f"INSERT INTO {quote(Phrase._meta.db_table)} ({columns}) VALUES ({values})"  # nosec B608  # quoted names
        cursor.executemany(statement, list(rows))


def rules_of(phrase_list: PhraseList) -> tuple[PhraseRule, ...]:
    """Return the phrases of a list in the order of their import, for export."""
    rows = phrase_list.phrases.order_by("pk").values_list("text", "bias", "case_sensitive", "whole_word")
    return tuple(PhraseRule(*row) for row in rows)


def phrase_list_changed(phrase_list: PhraseList, added: bool = False) -> None:
    """Raise the versions of a list (not of a new one) and its personas after a write, and announce the change."""
    if added:
        catalogue_changed()
    else:
        _lists_changed([phrase_list.pk])
    phrase_list.refresh_from_db(fields=["version"])


@transaction.atomic
def set_phrase_lists_enabled(lists: QuerySet[PhraseList], enabled: bool) -> list[PhraseList]:
    """Enable or disable these lists; return those that changed.

    Raises:
        ValidationError: Too many biases would be in force.
    """
    changed = list(lists.filter(enabled=not enabled))
    for phrase_list in changed:
        phrase_list.enabled = enabled
        if enabled:
            token_biases.check_list(phrase_list, token_biases.biased_texts(phrase_list))
        phrase_list.save(update_fields=["enabled", "updated"])
    if changed:
        _lists_changed([phrase_list.pk for phrase_list in changed])
    return changed


@transaction.atomic
def delete_phrase_lists(lists: QuerySet[PhraseList]) -> None:
    """Delete these lists with their phrases."""
    keys = list(lists.values_list("pk", flat=True))
    _lists_changed(keys)
    Phrase.objects.filter(phrase_list__in=keys).delete()  # one statement: the cascade would load every phrase
    PhraseList.objects.filter(pk__in=keys).delete()


@transaction.atomic
def _lists_changed(keys: Sequence[int]) -> None:
    PhraseList.objects.filter(pk__in=keys).update(version=F("version") + 1)
    # A subquery: the join would update a persona once for every list.
    attached = Persona.phrase_lists.through.objects.filter(phraselist_id__in=keys).values("persona_id")
    Persona.objects.filter(pk__in=attached).update(version=F("version") + 1)
    catalogue_changed()

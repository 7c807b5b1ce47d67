"""Verbs that write personas. Each raises the versions and tells who listens, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.text import slugify

from personas import token_biases, tokens
from personas.cards import Card
from personas.changes import catalogue_changed
from personas.models import Persona, PhraseList
from personas.sampling_ranges import SAMPLING_KEYS


@transaction.atomic
def save_persona(persona: Persona, phrase_lists: Iterable[PhraseList] | None = None) -> Persona:
    """Checks and stores a persona, and its lists where given. Raises Django's ``ValidationError`` by field.

    A disabled persona may be over the token limits: it can be kept and shortened, but not enabled.
    """
    persona.full_clean()
    if persona.enabled:
        tokens.check_prompts(persona.chat_prompt, persona.tool_prompt)
    added = persona.pk is None
    if not added:
        persona.version = F("version")  # a stale row in memory must not take the version back
    persona.save()
    if phrase_lists is not None:
        lists = list(phrase_lists)
        token_biases.check_attached(lists)
        persona.phrase_lists.set(lists)
    persona_changed(persona, added)
    return persona


def persona_changed(persona: Persona, added: bool = False) -> None:
    """After a persona's row or lists were written: its next version, except for a new one, and the news."""
    if not added:
        Persona.objects.filter(pk=persona.pk).update(version=F("version") + 1)
        persona.refresh_from_db(fields=["version"])
    catalogue_changed()


@transaction.atomic
def set_personas_enabled(personas: QuerySet[Persona], enabled: bool) -> list[Persona]:
    """Enables or disables these; returns those that changed. Raises ``ValidationError`` for one that may not be."""
    changed = list(personas.filter(enabled=not enabled))
    for persona in changed if enabled else ():
        try:
            tokens.check_prompts(persona.chat_prompt, persona.tool_prompt)
        except ValidationError as error:
            raise ValidationError(f"{persona.slug}: {' '.join(error.messages)}") from None
    if changed:
        Persona.objects.filter(pk__in=[persona.pk for persona in changed]).update(
            enabled=enabled, version=F("version") + 1, updated=timezone.now()
        )
        catalogue_changed()
    return changed


@transaction.atomic
def delete_personas(personas: QuerySet[Persona]) -> None:
    """Deletes these; sessions that hold one keep it until they end."""
    personas.delete()
    catalogue_changed()


@transaction.atomic
def import_card(card: Card, slug: str = "", gender: str = "", personality: str = "") -> Persona:
    """A new persona from a card; what is given wins over the card's own word. Raises ``ValidationError``.

    Its slug is the first free one made from the name. Over the token limits it is stored disabled.
    """
    style = {"output_style": card.output_style} if card.output_style else {}
    persona = Persona(
        slug=slug or _free_slug(card.slug or slugify(card.name) or "persona"),
        name=card.name,
        gender=gender or card.gender or "",
        personality=(personality or card.personality or "").strip().lower(),
        chat_prompt=card.chat_prompt,
        tool_prompt=card.tool_prompt,
        card=card.document,
        **style,
        **{key: value for key, value in card.sampling.items() if key in SAMPLING_KEYS},
    )
    try:
        tokens.check_prompts(persona.chat_prompt, persona.tool_prompt)
    except ValidationError:
        persona.enabled = False
    return save_persona(persona)


def card_of(persona: Persona) -> Card:
    """The persona as a character card, with everything that came in with it."""
    return Card(
        name=persona.name,
        chat_prompt=persona.chat_prompt,
        document=persona.card,
        slug=persona.slug,
        gender=persona.gender,
        personality=persona.personality,
        tool_prompt=persona.tool_prompt,
        sampling=persona.sampling,
        output_style=persona.output_style,
    )


def _free_slug(wanted: str) -> str:
    taken = set(Persona.objects.filter(slug__startswith=wanted[:60]).values_list("slug", flat=True))
    candidates = [wanted, *(f"{wanted[:60]}-{number}" for number in range(2, len(taken) + 3))]
    return next(slug for slug in candidates if slug not in taken)

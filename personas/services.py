"""Verbs that write personas. Each raises the versions and announces the change, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.text import slugify

from personas import images, token_biases, tokens
from personas.card_document import Card
from personas.card_prompt import unix_lines
from personas.changes import catalogue_changed
from personas.models import Persona, PhraseList, Portrait
from personas.sampling_ranges import SAMPLING_KEYS
from personas.snapshot import SPEECH_KINDS


@transaction.atomic
def save_persona(persona: Persona, phrase_lists: Iterable[PhraseList] | None = None) -> Persona:
    """Check and store a persona.

    A disabled persona may be over the token limits: an operator can shorten the prompt, then enable the persona.

    Args:
        phrase_lists: The lists to attach in place of the present ones. None: no change.

    Raises:
        ValidationError: By field.
    """
    persona.full_clean()
    if persona.enabled:
        tokens.check_prompts(persona.chat_prompt, persona.tool_prompt, persona.char)
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
    """Raise the version of a persona whose row or lists were written (not of a new one), and announce the change."""
    if not added:
        Persona.objects.filter(pk=persona.pk).update(version=F("version") + 1)
        persona.refresh_from_db(fields=["version"])
    catalogue_changed()


@transaction.atomic
def set_personas_enabled(personas: QuerySet[Persona], enabled: bool) -> list[Persona]:
    """Enable or disable these personas; return those that changed.

    Raises:
        ValidationError: One of them is over the token limits and cannot be enabled.
    """
    changed = list(personas.filter(enabled=not enabled))
    for persona in changed if enabled else ():
        try:
            tokens.check_prompts(persona.chat_prompt, persona.tool_prompt, persona.char)
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
    """Delete these personas. Sessions that hold one keep its snapshot until they end."""
    personas.delete()
    catalogue_changed()


@transaction.atomic
def import_card(card: Card, slug: str = "", gender: str = "", personality: str = "") -> Persona:
    """Return a new persona made from a card. A prompt over the token limits makes a disabled persona.

    Args:
        slug: Empty: the first free slug made from the card's slug or name.
        gender, personality: Used in place of the card's own. Empty: the card's.

    Raises:
        ValidationError: By field.
    """
    options: dict[str, object] = {
        f"skip_{kind}": kind in card.skipped_in_speech for kind in SPEECH_KINDS if card.skipped_in_speech is not None
    }
    if card.output_style:
        options["output_style"] = card.output_style
    if card.label_stops is not None:
        options["label_stops"] = card.label_stops
    persona = Persona(
        slug=slug or _free_slug(card.slug or slugify(card.name) or "persona"),
        name=card.name,
        nickname=card.nickname,
        gender=gender or card.gender or "",
        personality=(personality or card.personality or "").strip().lower(),
        chat_prompt=card.chat_prompt,
        tool_prompt=unix_lines(card.tool_prompt).strip(),
        card=card.document,
        **options,
        **{key: value for key, value in card.sampling.items() if key in SAMPLING_KEYS},
    )
    try:
        tokens.check_prompts(persona.chat_prompt, persona.tool_prompt, persona.char)
    except ValidationError:
        persona.enabled = False
    save_persona(persona)
    kind = images.media_type(card.portrait)
    if kind is not None:
        portrait = Portrait(persona=persona, media_type=kind, data=card.portrait)
        portrait.full_clean()
        portrait.save()
    return persona


def card_of(persona: Persona) -> Card:
    """Return the persona as a character card, with everything that was imported."""
    portrait = Portrait.objects.filter(persona=persona).first()
    return Card(
        name=persona.name,
        nickname=persona.nickname,
        chat_prompt=persona.chat_prompt,
        document=persona.card,
        slug=persona.slug,
        gender=persona.gender,
        personality=persona.personality,
        tool_prompt=persona.tool_prompt,
        sampling=persona.sampling,
        output_style=persona.output_style,
        label_stops=persona.label_stops,
        skipped_in_speech=persona.skipped_in_speech,
        portrait=bytes(portrait.data) if portrait else b"",
    )


def _free_slug(wanted: str) -> str:
    wanted = wanted[:64]
    taken = set(Persona.objects.filter(slug__startswith=wanted[:60]).values_list("slug", flat=True))
    candidates = [wanted, *(f"{wanted[:60]}-{number}" for number in range(2, len(taken) + 3))]
    return next(slug for slug in candidates if slug not in taken)

"""Reads: the catalogue as frozen snapshots, and its version."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from personas.models import CatalogueVersion, Persona, Phrase
from personas.sampling_ranges import clamp
from personas.snapshot import Catalogue, PersonaSnapshot, PhraseRule
from personas.tool_selectors import load_head, load_tools

_TRIES = 5


def catalogue_version() -> int:
    """Return the committed version number of the catalogue. One query."""
    return CatalogueVersion.objects.filter(pk=1).values_list("number", flat=True).first() or 0


def load_catalogue(instead_of_builtin: Sequence[PhraseRule] | None = None) -> Catalogue:
    """Return every enabled persona by slug, the phrases of the enabled global lists, the enabled tools and the head in
    force. Eight queries.

    Every writer raises the version in its own transaction, so equal versions before and after mean no half edits.

    Args:
        instead_of_builtin: The rules of ``CHAT_LOGIT_BIAS_FILE``, which replace the built-in list. None: no such file.
    """
    version = catalogue_version()
    for _ in range(_TRIES):
        catalogue = _read(version, instead_of_builtin)
        now = catalogue_version()
        if now == version:
            break
        version = now
    return catalogue


def _read(version: int, instead_of_builtin: Sequence[PhraseRule] | None) -> Catalogue:
    phrases = _phrases_by_list(with_builtin=instead_of_builtin is None)
    attached: dict[int, list[PhraseRule]] = defaultdict(list)
    links = Persona.phrase_lists.through.objects.order_by("phraselist_id")
    for persona_id, list_id in links.values_list("persona_id", "phraselist_id"):
        attached[persona_id].extend(phrases.get((list_id, False), ()))
    shared = [*(instead_of_builtin or ())]
    for (_, is_global), rules in phrases.items():
        shared.extend(rules if is_global else ())
    personas = Persona.objects.filter(enabled=True).order_by("slug").defer("card", "created", "updated")
    return Catalogue(
        personas={persona.slug: _snapshot(persona, attached[persona.pk]) for persona in personas},
        phrases=tuple(dict.fromkeys(shared)),
        version=version,
        tools=load_tools(),
        tool_head=load_head(),
    )


def _phrases_by_list(with_builtin: bool) -> dict[tuple[int, bool], list[PhraseRule]]:
    found: dict[tuple[int, bool], list[PhraseRule]] = defaultdict(list)
    rows = Phrase.objects.filter(phrase_list__enabled=True).order_by("phrase_list_id", "pk")
    if not with_builtin:
        rows = rows.filter(phrase_list__builtin=False)
    columns = ("phrase_list_id", "phrase_list__is_global", "text", "bias", "case_sensitive", "whole_word")
    for list_id, is_global, text, bias, case_sensitive, whole_word in rows.values_list(*columns):
        found[list_id, is_global].append(PhraseRule(text, bias, case_sensitive, whole_word))
    return found


def _snapshot(persona: Persona, phrases: Sequence[PhraseRule]) -> PersonaSnapshot:
    return PersonaSnapshot(
        slug=persona.slug,
        name=persona.name,
        gender=persona.gender,
        personality=persona.personality,
        chat_prompt=persona.chat_prompt,
        tool_prompt=persona.tool_prompt or None,
        sampling={key: clamp(key, value) for key, value in persona.sampling.items()},
        phrases=tuple(dict.fromkeys(phrases)),
        output_style=persona.output_style,
        version=persona.version,
        nickname=persona.nickname,
        label_stops=persona.label_stops,
        skipped_in_speech=persona.skipped_in_speech,
        tool_threshold=persona.tool_threshold,
        openai_tool_decision=persona.openai_tool_decision,
    )

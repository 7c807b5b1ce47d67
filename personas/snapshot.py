"""What a turn needs to know of personas and phrases, frozen. No Django: sessions hold these while admins edit rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BAN_BIAS = -100.0  # at or below: the phrase is banned exactly; above: a token bias


@dataclass(frozen=True, slots=True)
class PhraseRule:
    """One listed phrase. ``bias`` at or below −100 bans the text exactly; above it biases the phrase's tokens."""

    text: str
    bias: float = BAN_BIAS
    case_sensitive: bool = False
    whole_word: bool = False

    @property
    def banned(self) -> bool:
        return self.bias <= BAN_BIAS


@dataclass(frozen=True, slots=True)
class PersonaSnapshot:
    """One version of one persona. ``gender`` and ``personality`` are normalised (lower case).

    ``sampling`` holds only the keys the persona sets. ``phrases`` are those of the lists attached to it, beside the
    global ones. ``output_style`` is ``raw`` or ``speech``.
    """

    slug: str
    name: str
    gender: str
    personality: str
    chat_prompt: str
    tool_prompt: str | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    phrases: tuple[PhraseRule, ...] = ()
    output_style: str = "raw"
    version: int = 1


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every enabled persona and the global phrases, at one version. Replaced whole, never edited."""

    personas: Mapping[str, PersonaSnapshot] = field(default_factory=dict)
    phrases: tuple[PhraseRule, ...] = ()
    version: int = 0

    def by_slug(self, slug: str) -> PersonaSnapshot | None:
        """The enabled persona with this slug."""
        return self.personas.get(slug)

    def by_style(self, gender: str, personality: str, allowed: frozenset[str] | None = None) -> PersonaSnapshot | None:
        """The first enabled persona (by slug) with this gender and personality, of those ``allowed`` (None: all)."""
        for slug, persona in self.personas.items():
            if persona.gender == gender and persona.personality == personality and (allowed is None or slug in allowed):
                return persona
        return None

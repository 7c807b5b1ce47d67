"""Frozen copies of personas and phrases for the serving path. No Django: sessions hold these while rows are edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from personas.tool_snapshot import ToolHeadSnapshot, ToolSnapshot

BAN_BIAS = -100.0  # at or below: the phrase is banned exactly; above: a token bias
SPEECH_KINDS = ("actions", "asides", "ooc", "code")  # *actions*, (asides), [OOC …], code blocks


@dataclass(frozen=True, slots=True)
class PhraseRule:
    """One listed phrase. ``bias`` at or below −100 bans the text exactly; above, it biases the phrase's tokens."""

    text: str
    bias: float = BAN_BIAS
    case_sensitive: bool = False
    whole_word: bool = False

    @property
    def banned(self) -> bool:
        return self.bias <= BAN_BIAS


@dataclass(frozen=True, slots=True)
class PersonaSnapshot:
    """One version of one persona.

    Args:
        slug: The identifier that clients send.
        name: The name for people.
        gender: ``female`` or ``male``.
        personality: Lower case.
        chat_prompt: With macros, see ``personas.macros.expand``.
        tool_prompt: With macros; None: the server's default.
        sampling: The keys that the persona sets, within the ranges in force.
        phrases: The phrases of the attached lists, without those of the global lists.
        output_style: ``raw`` or ``speech``.
        version: Grows with every saved change.
        nickname: The text of ``{{char}}``; empty: the name. See :attr:`char`.
        label_stops: Whether a line that begins with a speaker label ends the reply.
        skipped_in_speech: Kinds of text (of ``SPEECH_KINDS``) that the speech style leaves out.
        tool_threshold: Probability of yes from which a tool is called; None: the server's.
        openai_tool_decision: Whether a ``/v1`` request without tools has a decision about this persona's tools.
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
    nickname: str = ""
    label_stops: bool = True
    skipped_in_speech: frozenset[str] = frozenset()
    tool_threshold: float | None = None
    openai_tool_decision: bool = False

    @property
    def char(self) -> str:
        """The text that ``{{char}}`` stands for."""
        return self.nickname.strip() or self.name


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every enabled persona, the phrases of the global lists, the enabled tools and the classifier head in force, at
    one version. Replaced as a whole, never edited."""

    personas: Mapping[str, PersonaSnapshot] = field(default_factory=dict)
    phrases: tuple[PhraseRule, ...] = ()
    version: int = 0
    tools: tuple[ToolSnapshot, ...] = ()
    tool_head: ToolHeadSnapshot | None = None

    def by_slug(self, slug: str) -> PersonaSnapshot | None:
        """Return the enabled persona with this slug, or None."""
        return self.personas.get(slug)

    def by_style(self, gender: str, personality: str, allowed: frozenset[str] | None = None) -> PersonaSnapshot | None:
        """Return the first enabled persona (by slug) with this gender and personality, or None.

        Args:
            allowed: Slugs to choose from. None: all.
        """
        for slug, persona in self.personas.items():
            if persona.gender == gender and persona.personality == personality and (allowed is None or slug in allowed):
                return persona
        return None

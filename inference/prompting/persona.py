"""The persona of a session as data: the fields of a message, the choice that a session stores, the resolved result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from inference.phrases.compiled import CompiledPhrases
from inference.prompting.tool_definitions import CallGrammar
from personas.snapshot import PersonaSnapshot


class PersonaProblem(StrEnum):
    """Reasons why a persona cannot be used. The session maps each to a wire code."""

    UNKNOWN_PERSONA = "unknown_persona"
    MISSING_GENDER = "missing_gender"
    MISSING_PERSONALITY = "missing_personality"
    MISSING_CHAT_PROMPT = "missing_chat_prompt"
    CHAT_PROMPT_NOT_ALLOWED = "chat_prompt_not_allowed"
    CHAT_PROMPT_TOO_LONG = "chat_prompt_too_long"
    TOOL_PROMPT_NOT_ALLOWED = "tool_prompt_not_allowed"
    TOOL_PROMPT_TOO_LONG = "tool_prompt_too_long"


class PersonaError(ValueError):
    """A persona that cannot be used: ``problem`` says why, the message is one sentence for the client."""

    def __init__(self, problem: PersonaProblem, message: str) -> None:
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class PersonaFields:
    """The persona fields of one message. None means absent; gender and personality are normalised."""

    chat_prompt: str | None = None
    gender: str | None = None
    personality: str | None = None
    persona: str | None = None

    def __bool__(self) -> bool:
        return not (
            self.chat_prompt is None and self.gender is None and self.personality is None and self.persona is None
        )


@dataclass(frozen=True, slots=True)
class SessionPersona:
    """What a session stores of its persona: templates and choices, never expanded text.

    Every turn resolves this again, under the key's current rights and the catalogue in force.

    Args:
        snapshot: the stored persona in use, in the version that was chosen; None where the client wrote its own
            prompt and chose no stored persona. Its phrase lists, sampling and output style apply.
        gender: the client's label where the label differs from the snapshot's; None otherwise.
        personality: the same for the personality.
        own_chat_template: the client's own prompt, macros unexpanded; None where the snapshot's prompt applies.
        own_tool_template: the client's own tool prompt; None where the snapshot's or the server's applies.
        user_name: the user's name for ``{{user}}``; None where the client gave none.
        session_id: the seed of macros whose result must not change during a session.
        moment: the local time of ``{{time}}`` and ``{{date}}``; the same for a whole day, so that the prefix cache
            keeps the prompt. None before the first message.
    """

    snapshot: PersonaSnapshot | None
    gender: str | None = None
    personality: str | None = None
    own_chat_template: str | None = None
    own_tool_template: str | None = None
    user_name: str | None = None
    session_id: str = ""
    moment: datetime | None = None

    def same_as(self, other: SessionPersona) -> bool:
        """Whether both are the same choice. Snapshots are compared by identity: another object is another version."""
        return self.snapshot is other.snapshot and all(
            getattr(self, name) == getattr(other, name) for name in _COMPARED
        )


_COMPARED = tuple(name for name in SessionPersona.__dataclass_fields__ if name != "snapshot")


@dataclass(frozen=True, slots=True)
class ResolvedPersona:
    """Everything a turn needs of a persona.

    Args:
        chat_prompt: the expanded prompt; None on a server without a chat engine where no prompt is known.
        chat_ids: the token ids that begin every prompt of the chat engine (empty where it is not deployed).
        tool_ids: the same for the tool engine.
        grammar: the tools in force and the calls that they allow.
        phrases: the compiled phrase lists in force.
        snapshot: the stored persona whose rules govern; None for an own prompt without a stored persona.
        user_name: the user's name as the prompt spells it.
    """

    gender: str | None
    personality: str | None
    chat_prompt: str | None
    tool_prompt: str
    chat_ids: tuple[int, ...]
    tool_ids: tuple[int, ...]
    phrases: CompiledPhrases
    grammar: CallGrammar
    snapshot: PersonaSnapshot | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    output_style: str = "raw"
    user_name: str | None = None

    @property
    def slug(self) -> str:
        """The slug of the governing stored persona; empty where there is none."""
        return self.snapshot.slug if self.snapshot else ""

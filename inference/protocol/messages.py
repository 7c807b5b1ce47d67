"""Messages from the client, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inference.prompting.history import ExchangeText


@dataclass(frozen=True, slots=True)
class PersonaFields:
    """Who the character is, as far as one message says. Absent is None; gender and personality are normalised."""

    chat_prompt: str | None = None
    gender: str | None = None
    personality: str | None = None
    persona: str | None = None

    def __bool__(self) -> bool:
        return not (
            self.chat_prompt is None and self.gender is None and self.personality is None and self.persona is None
        )


@dataclass(frozen=True, slots=True)
class Message:
    """What every message may carry."""

    request_id: str | None


@dataclass(frozen=True, slots=True)
class Start(Message):
    session_id: str
    utterance: str
    persona: PersonaFields
    history: tuple[ExchangeText, ...] | None
    tool_prompt: str | None
    sampling: Mapping[str, float] | None
    heard: int | None
    user_identity: str | None


@dataclass(frozen=True, slots=True)
class Followup(Message):
    analysis_text: str


@dataclass(frozen=True, slots=True)
class ChatPrompt(Message):
    persona: PersonaFields


@dataclass(frozen=True, slots=True)
class WarmPersona(Message):
    chat_prompt: str


@dataclass(frozen=True, slots=True)
class WarmHistory(Message):
    history_text: str
    history: tuple[ExchangeText, ...]


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    heard: int | None = None


@dataclass(frozen=True, slots=True)
class End(Message):
    pass


@dataclass(frozen=True, slots=True)
class Ping(Message):
    pass


@dataclass(frozen=True, slots=True)
class Pong(Message):
    pass

"""Messages from the client, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inference.prompting.heard import Heard
from inference.prompting.persona import PersonaFields


@dataclass(frozen=True, slots=True)
class Message:
    """The field that every message may have. ``request_id`` is echoed in the answer; None where absent."""

    request_id: str | None


@dataclass(frozen=True, slots=True)
class Start(Message):
    """Starts a turn. ``utterance`` is empty where the character speaks first; ``history_text`` None keeps the history;
    ``sampling`` None keeps the session's; ``user_identity`` is the user's name, None where absent."""

    session_id: str
    utterance: str
    persona: PersonaFields
    history_text: str | None
    tool_prompt: str | None
    sampling: Mapping[str, float] | None
    heard: Heard | None
    user_identity: str | None


@dataclass(frozen=True, slots=True)
class Followup(Message):
    """Starts a turn of the chat engine alone with the client's description of an image."""

    analysis_text: str


@dataclass(frozen=True, slots=True)
class ChatPrompt(Message):
    """Changes the persona within a session."""

    persona: PersonaFields


@dataclass(frozen=True, slots=True)
class WarmPersona(Message):
    """Computes a persona's prompt into the prefix cache."""

    chat_prompt: str


@dataclass(frozen=True, slots=True)
class WarmHistory(Message):
    """Computes a history into the prefix cache."""

    history_text: str


@dataclass(frozen=True, slots=True)
class Resume(Message):
    """Asks for the rest of turn ``turn`` of a lost connection. ``received`` is the part of the text that the client
    has."""

    session_id: str
    turn: int
    received: Heard


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    """Cancels the running turn. ``heard`` cuts the last reply; None leaves the reply as delivered."""

    heard: Heard | None = None


@dataclass(frozen=True, slots=True)
class End(Message):
    """Ends the conversation: the server closes with 1000."""


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """Asks for a ``pong``."""


@dataclass(frozen=True, slots=True)
class Pong(Message):
    """Counts as activity; no answer."""

"""The result of one turn, frozen: history, usage, log and metrics read it after the turn has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class EndReason(StrEnum):
    """How a turn ended. ``STOP`` and ``LENGTH`` are whole replies."""

    STOP = "stop"
    LENGTH = "length"
    TIMEOUT = "timeout"
    ERROR = "error"
    CANCELLED = "cancelled"


class StopReason(StrEnum):
    """Why a running turn was cancelled."""

    BARGE_IN = "barge-in"
    CANCEL = "cancel"
    DISCONNECT = "disconnect"
    REVOKED = "revoked"
    DRAIN = "drain"
    END = "end"
    ABUSE = "abuse"


@dataclass(frozen=True, slots=True)
class EncodedUtterance:
    """One user message with its token ids, each encoded at most once per turn.

    Args:
        text: the message as the history keeps it; None where the character speaks first.
        chat_ids: the contents of the chat engine's user turn; None without text or without a chat engine.
        tool_ids: the line of the tool engine's transcript, without a line break; None where the tool engine is not
            asked.
    """

    text: str | None
    chat_ids: Sequence[int] | None = None
    tool_ids: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class GenerationUsage:
    """Tokens and times of one turn. Times are milliseconds since the turn's start; None where nothing happened.

    Args:
        prompt_tokens: the prompt of the reply that was delivered, cached part included.
        cached_tokens: the part of ``prompt_tokens`` that the prefix cache held.
        completion_tokens: tokens that the reply kept.
        reasoning_tokens: tokens that a reasoning model generated as thoughts; not part of ``completion_tokens``.
        discarded_tokens: prompt and output tokens of a reply that was aborted after a tool decision of yes.
        ttft_ms: time to the first text that the client could see.
        tool_ms: time to the tool decision.
        suppressed: banned phrases that were removed.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    tool_prompt_tokens: int = 0
    tool_completion_tokens: int = 0
    discarded_tokens: int = 0
    ttft_ms: float | None = None
    tool_ms: float | None = None
    total_ms: float = 0.0
    suppressed: int = 0
    reasoning_tokens: int = 0

    def as_frame(self, ended_by: EndReason) -> Mapping[str, Any]:
        """Return the ``usage`` object of the ``done`` frame. ``reasoning_tokens`` is there where the model thought."""
        thoughts = {"reasoning_tokens": self.reasoning_tokens} if self.reasoning_tokens else {}
        return {
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            **thoughts,
            "tool_prompt_tokens": self.tool_prompt_tokens,
            "tool_completion_tokens": self.tool_completion_tokens,
            "discarded_tokens": self.discarded_tokens,
            "ttft_ms": self.ttft_ms,
            "tool_ms": self.tool_ms,
            "total_ms": self.total_ms,
            "finish_reason": str(ended_by),
            "suppressed": self.suppressed,
        }


@dataclass(frozen=True, slots=True)
class TurnResult:
    """One ended turn.

    Args:
        turn: the turn's number on its connection.
        persona_slug: the stored persona that spoke; empty where there is none.
        utterance: the user's message; after a decision of yes ``chat_ids`` hold the prefixed text.
        delivered: the text that the client received.
        reply_ids: the token ids of the delivered text, as generated where possible.
        ended_by: how the turn ended.
        stop_reason: why a cancelled turn was cancelled; None otherwise.
        error_code: the wire code of a turn that failed; None otherwise.
        tool: the tool decision; None where none was made.
        usage: tokens and times.
        held_deltas: engine outputs that the phrase guard held back.
    """

    turn: int
    persona_slug: str
    utterance: EncodedUtterance
    delivered: str
    reply_ids: Sequence[int]
    ended_by: EndReason
    stop_reason: StopReason | None
    error_code: str | None
    tool: bool | None
    usage: GenerationUsage
    held_deltas: int = 0

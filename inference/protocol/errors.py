"""Error codes of the wire protocol, and the exception that carries one to the client."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from inference.engines.sampling import SAMPLING_KEYS
from inference.prompting.persona import PersonaError, PersonaProblem


class ErrorCode(StrEnum):
    """The values of ``error_code``, except ``invalid_<key>`` and ``<key>_out_of_range`` of the sampling keys."""

    AUTHENTICATION_FAILED = "authentication_failed"
    SERVER_AT_CAPACITY = "server_at_capacity"
    SERVER_NOT_READY = "server_not_ready"
    SERVER_DRAINING = "server_draining"
    INVALID_MESSAGE = "invalid_message"
    UNKNOWN_MESSAGE_TYPE = "unknown_message_type"
    MISSING_SESSION_ID = "missing_session_id"
    MISSING_GENDER = "missing_gender"
    INVALID_GENDER = "invalid_gender"
    MISSING_PERSONALITY = "missing_personality"
    INVALID_PERSONALITY = "invalid_personality"
    MISSING_CHAT_PROMPT = "missing_chat_prompt"
    INVALID_CHAT_PROMPT = "invalid_chat_prompt"
    CHAT_PROMPT_TOO_LONG = "chat_prompt_too_long"
    MISSING_TOOL_PROMPT = "missing_tool_prompt"
    INVALID_TOOL_PROMPT = "invalid_tool_prompt"
    TOOL_PROMPT_TOO_LONG = "tool_prompt_too_long"
    TOOL_PROMPT_UPDATE_NOT_ALLOWED = "tool_prompt_update_not_allowed"
    UNKNOWN_PERSONA = "unknown_persona"
    INVALID_USER_UTTERANCE = "invalid_user_utterance"
    INVALID_USER_IDENTITY = "invalid_user_identity"
    MISSING_ANALYSIS_TEXT = "missing_analysis_text"
    INVALID_HISTORY = "invalid_history"
    NO_ACTIVE_SESSION = "no_active_session"
    UNKNOWN_SESSION = "unknown_session"
    CHAT_NOT_DEPLOYED = "chat_not_deployed"
    INVALID_SAMPLING_PAYLOAD = "invalid_sampling_payload"
    MESSAGE_RATE_LIMITED = "message_rate_limited"
    CANCEL_RATE_LIMITED = "cancel_rate_limited"
    CHAT_PROMPT_UPDATE_RATE_LIMITED = "chat_prompt_update_rate_limited"
    GENERATION_TIMEOUT = "generation_timeout"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    KEY_REVOKED = "key_revoked"
    TOKEN_BUDGET_EXHAUSTED = "token_budget_exhausted"  # nosec B105  # an error code
    INTERNAL_ERROR = "internal_error"


class ProtocolError(Exception):
    """Bad input that an ``error`` frame answers; the connection stays open.

    Args:
        code: the wire's ``error_code``.
        message: one sentence for the client.
        kind: the message type; ``chat_prompt`` gets its answer as an ``ack`` with ``ok: false``.
        request_id: echoed in the frame.
        details: further fields of the frame.
    """

    def __init__(
        self, code: str, message: str, *, kind: str = "", request_id: str | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.code = str(code)
        self.message = message
        self.kind = kind
        self.request_id = request_id
        self.details = details


_SAMPLING_CODES = tuple(f"invalid_{key}" for key in SAMPLING_KEYS) + tuple(
    f"{key}_out_of_range" for key in SAMPLING_KEYS
)
ALL_ERROR_CODES: tuple[str, ...] = tuple(str(code) for code in ErrorCode) + _SAMPLING_CODES

_PERSONA_CODES = {
    PersonaProblem.UNKNOWN_PERSONA: ErrorCode.UNKNOWN_PERSONA,
    PersonaProblem.MISSING_GENDER: ErrorCode.MISSING_GENDER,
    PersonaProblem.MISSING_PERSONALITY: ErrorCode.MISSING_PERSONALITY,
    PersonaProblem.MISSING_CHAT_PROMPT: ErrorCode.MISSING_CHAT_PROMPT,
    PersonaProblem.CHAT_PROMPT_NOT_ALLOWED: ErrorCode.INVALID_CHAT_PROMPT,
    PersonaProblem.CHAT_PROMPT_TOO_LONG: ErrorCode.CHAT_PROMPT_TOO_LONG,
    PersonaProblem.TOOL_PROMPT_NOT_ALLOWED: ErrorCode.INVALID_TOOL_PROMPT,
    PersonaProblem.TOOL_PROMPT_TOO_LONG: ErrorCode.TOOL_PROMPT_TOO_LONG,
}


def persona_refused(error: PersonaError) -> ProtocolError:
    """Return the wire's error for a persona that cannot be used."""
    return ProtocolError(_PERSONA_CODES[error.problem], str(error))

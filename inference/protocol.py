"""The wire: what a client may send, typed; what the server answers, encoded. One JSON object per text frame.

Decoding checks the shape of a message alone. What needs the session (is there a persona yet, does a limit hold) is
the session's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from inference.history import HistoryError, Line, parse_history_text
from inference.sampling import SAMPLING_KEYS, SamplingError, SamplingRules

SUBPROTOCOL = "yap.v1"
MAX_MESSAGE_BYTES = 1024 * 1024


class ErrorCode(StrEnum):
    """Every ``error_code`` there is, beside ``invalid_<key>`` and ``<key>_out_of_range`` of the sampling keys."""

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
    MISSING_ANALYSIS_TEXT = "missing_analysis_text"
    INVALID_HISTORY = "invalid_history"
    NO_ACTIVE_SESSION = "no_active_session"
    CHAT_NOT_DEPLOYED = "chat_not_deployed"
    INVALID_SAMPLING_PAYLOAD = "invalid_sampling_payload"
    MESSAGE_RATE_LIMITED = "message_rate_limited"
    CANCEL_RATE_LIMITED = "cancel_rate_limited"
    CHAT_PROMPT_UPDATE_RATE_LIMITED = "chat_prompt_update_rate_limited"
    GENERATION_TIMEOUT = "generation_timeout"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    KEY_REVOKED = "key_revoked"
    TOKEN_BUDGET_EXHAUSTED = "token_budget_exhausted"
    INTERNAL_ERROR = "internal_error"


class ProtocolError(Exception):
    """Bad input, answered with an ``error`` frame while the connection lives on. ``details`` go into the frame."""

    def __init__(
        self, code: str, message: str, *, kind: str = "", request_id: str | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.code = str(code)
        self.message = message
        self.kind = kind
        self.request_id = request_id
        self.details = details


# -- client to server ------------------------------------------------------------------------------


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
    history: tuple[Line, ...] | None
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
    history: tuple[Line, ...]


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


GENDERS = {
    "female": "female", "woman": "female", "girl": "female", "f": "female",
    "male": "male", "man": "male", "boy": "male", "guy": "male", "m": "male",
}  # fmt: skip
MESSAGE_TYPES = (
    "start", "followup", "chat_prompt", "warm_persona", "warm_history", "cancel", "end", "ping", "pong",
)  # fmt: skip


class Envelope(NamedTuple):
    """A frame whose type is known, its fields not looked at yet."""

    kind: str
    fields: Mapping[str, Any]
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Decoder:
    """Frames to messages, with the server's names and ranges."""

    sampling: SamplingRules
    personality_max_len: int = 20
    end_sentinel: str = "__END__"
    cancel_sentinel: str = "__CANCEL__"
    max_bytes: int = MAX_MESSAGE_BYTES

    def open(self, text: str | None) -> Envelope:
        """The type of one frame. ``text`` is None for a binary frame.

        Raises :class:`ProtocolError` with ``invalid_message``; an unknown type is left to :meth:`decode`, because it
        is charged first.
        """
        if text is None:
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "binary frames are not part of this protocol")
        if len(text) > self.max_bytes or (
            len(text) * 4 > self.max_bytes and len(text.encode(errors="surrogatepass")) > self.max_bytes
        ):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"a message may have at most {self.max_bytes} bytes")
        word = text.strip() if len(text) < 64 else ""
        if word == self.cancel_sentinel:
            return Envelope("cancel", {}, None)
        if word == self.end_sentinel:
            return Envelope("end", {}, None)
        try:
            fields = orjson.loads(text)
        except (orjson.JSONDecodeError, UnicodeEncodeError, RecursionError):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "the message is not valid JSON") from None
        if not isinstance(fields, dict):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "a message is one JSON object")
        request_id = _request_id(fields.get("request_id"))
        kind = fields.get("type")
        if kind is None:
            for name in ("cancel", "end"):
                if fields.get(name) is True:
                    return Envelope(name, fields, request_id)
        if not isinstance(kind, str) or not kind.strip():
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "a message needs a type", request_id=request_id)
        return Envelope(kind.strip().lower(), fields, request_id)

    def decode(self, envelope: Envelope) -> Message:
        """The typed message. Raises :class:`ProtocolError` with the code of the first field that cannot be used."""
        kind, fields, request_id = envelope
        try:
            return self._decode(kind, fields, request_id)
        except ProtocolError as error:
            error.kind, error.request_id = kind, request_id
            raise

    def _decode(self, kind: str, fields: Mapping[str, Any], request_id: str | None) -> Message:
        match kind:
            case "start":
                return self._start(fields, request_id)
            case "followup":
                text = fields.get("analysis_text")
                if not isinstance(text, str) or not text.strip():
                    raise ProtocolError(ErrorCode.MISSING_ANALYSIS_TEXT, "followup needs analysis_text, a string")
                return Followup(request_id, text)
            case "chat_prompt":
                if fields.get("tool_prompt") is not None:
                    raise ProtocolError(
                        ErrorCode.TOOL_PROMPT_UPDATE_NOT_ALLOWED, "chat_prompt cannot change the tool prompt"
                    )
                return ChatPrompt(request_id, self._persona(fields))
            case "warm_persona":
                prompt = _chat_prompt(fields)
                if prompt is None:
                    raise ProtocolError(ErrorCode.MISSING_CHAT_PROMPT, "warm_persona needs chat_prompt")
                return WarmPersona(request_id, prompt)
            case "warm_history":
                text = fields.get("history_text")
                if not isinstance(text, str):
                    raise ProtocolError(ErrorCode.INVALID_HISTORY, "warm_history needs history_text, a string")
                return WarmHistory(request_id, text, _history(text))
            case "cancel":
                return Cancel(request_id, _heard(fields))
            case "end":
                return End(request_id)
            case "ping":
                return Ping(request_id)
            case "pong":
                return Pong(request_id)
        raise ProtocolError(ErrorCode.UNKNOWN_MESSAGE_TYPE, f"unknown type; known are {', '.join(MESSAGE_TYPES)}")

    def _start(self, fields: Mapping[str, Any], request_id: str | None) -> Start:
        session_id = fields.get("session_id")
        if not isinstance(session_id, str) or not session_id.strip():
            raise ProtocolError(ErrorCode.MISSING_SESSION_ID, "start needs session_id, a string")
        utterance = fields.get("user_utterance")
        if utterance is not None and not isinstance(utterance, str):
            raise ProtocolError(ErrorCode.INVALID_USER_UTTERANCE, "user_utterance must be a string")
        persona = self._persona(fields)
        history = fields.get("history_text")
        if history is not None and not isinstance(history, str):
            raise ProtocolError(ErrorCode.INVALID_HISTORY, "history_text must be a string")
        tool_prompt = fields.get("tool_prompt")
        if tool_prompt is not None:
            if not isinstance(tool_prompt, str):
                raise ProtocolError(ErrorCode.INVALID_TOOL_PROMPT, "tool_prompt must be a string")
            if not tool_prompt.strip():
                raise ProtocolError(ErrorCode.MISSING_TOOL_PROMPT, "tool_prompt is empty")
        try:
            sampling = self.sampling.overrides(fields)
        except SamplingError as error:
            raise ProtocolError(error.error_code, str(error)) from None
        identity = fields.get("user_identity")
        return Start(
            request_id,
            session_id=session_id,
            utterance=utterance or "",
            persona=persona,
            history=None if history is None else _history(history),
            tool_prompt=tool_prompt,
            sampling=sampling,
            heard=_heard(fields),
            user_identity=identity if isinstance(identity, str) else None,
        )

    def _persona(self, fields: Mapping[str, Any]) -> PersonaFields:
        gender = _blank_to_none(fields.get("gender"))
        if gender is not None:
            known = GENDERS.get(gender.strip().lower()) if isinstance(gender, str) else None
            if known is None:
                raise ProtocolError(ErrorCode.INVALID_GENDER, "gender must be female or male")
            gender = known
        personality = _blank_to_none(fields.get("personality"))
        if personality is None:
            personality = _blank_to_none(fields.get("persona_style"))
        if personality is not None:
            word = personality.strip() if isinstance(personality, str) else ""
            if not word.isalpha() or len(word) > self.personality_max_len:
                raise ProtocolError(
                    ErrorCode.INVALID_PERSONALITY,
                    f"personality must be letters only, at most {self.personality_max_len}",
                )
            personality = word.lower()
        slug = _blank_to_none(fields.get("persona"))
        if slug is not None and not isinstance(slug, str):
            raise ProtocolError(ErrorCode.UNKNOWN_PERSONA, "persona must be the slug of a stored persona")
        return PersonaFields(_chat_prompt(fields), gender, personality, slug.strip() if slug else None)


def _blank_to_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _chat_prompt(fields: Mapping[str, Any]) -> str | None:
    prompt = _blank_to_none(fields.get("chat_prompt"))
    if prompt is None:
        prompt = _blank_to_none(fields.get("persona_text"))
    if prompt is not None and not isinstance(prompt, str):
        raise ProtocolError(ErrorCode.INVALID_CHAT_PROMPT, "chat_prompt must be a string")
    return prompt


def _history(text: str) -> tuple[Line, ...]:
    try:
        return parse_history_text(text)
    except HistoryError as error:
        raise ProtocolError(ErrorCode.INVALID_HISTORY, str(error)) from None


def _heard(fields: Mapping[str, Any]) -> int | None:
    heard = fields.get("heard")
    if heard is None:
        return None
    if isinstance(heard, bool) or not isinstance(heard, int) or heard < 0:
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, "heard must be a number of characters")
    return heard


def _request_id(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return orjson.dumps(value).decode()
    raise ProtocolError(ErrorCode.INVALID_MESSAGE, "request_id must be a string or a number")


# -- server to client ------------------------------------------------------------------------------


def encode(kind: str, **fields: Any) -> str:
    """One frame. Fields that are None are left out."""
    return orjson.dumps({"type": kind, **{name: value for name, value in fields.items() if value is not None}}).decode()


def error_frame(error: ProtocolError, *, turn: int | None = None) -> str:
    """The answer to bad input; for ``chat_prompt`` that is its ack with ``ok: false``."""
    if error.kind == "chat_prompt":
        return encode(
            "ack",
            **{"for": "chat_prompt"},
            ok=False,
            code=_ack_code(error.code),
            error_code=error.code,
            message=error.message,
            request_id=error.request_id,
            **error.details,
        )
    return encode(
        "error",
        error_code=error.code,
        message=error.message,
        request_id=error.request_id,
        turn=turn,
        **error.details,
    )


def _ack_code(code: str) -> int:
    if code.endswith("_too_long"):
        return 413
    return 429 if code.endswith(("_rate_limited", "_exhausted")) else 400


@dataclass(slots=True)
class TurnFrames:
    """The frames of one turn: each carries its number and, where the client gave one, its ``request_id``."""

    turn: int
    request_id: str | None
    _tail: str = field(init=False)

    def __post_init__(self) -> None:
        tail = {"turn": self.turn} if self.request_id is None else {"turn": self.turn, "request_id": self.request_id}
        self._tail = "," + orjson.dumps(tail).decode()[1:]

    def token(self, text: str) -> str:
        # The hot frame: its keys never change, so only the text is encoded.
        return '{"type":"token","text":' + orjson.dumps(text).decode() + self._tail

    def ack(self, **fields: Any) -> str:
        return self._frame("ack", {"for": "start", "ok": True, **fields})

    def toolcall(self, calls: list[dict[str, Any]]) -> str:
        return self._frame("toolcall", {"status": "yes" if calls else "no", "raw": calls})

    def final(self, text: str) -> str:
        return self._frame("final", {"normalized_text": text})

    def done(self, usage: Mapping[str, Any] | None = None, *, cancelled: bool = False) -> str:
        return self._frame("done", {"cancelled": True} if cancelled else {"usage": usage})

    def error(self, code: str, message: str, **details: Any) -> str:
        return self._frame("error", {"error_code": str(code), "message": message, **details})

    def _frame(self, kind: str, fields: Mapping[str, Any]) -> str:
        return orjson.dumps({"type": kind, **fields}).decode()[:-1] + self._tail


_SAMPLING_CODES = tuple(f"invalid_{key}" for key in SAMPLING_KEYS) + tuple(
    f"{key}_out_of_range" for key in SAMPLING_KEYS
)
ALL_ERROR_CODES: tuple[str, ...] = tuple(str(code) for code in ErrorCode) + _SAMPLING_CODES

"""Text frames from the client to typed messages.

Decoding checks the shape of a message. Checks that need the session (an active persona, a rate limit) belong to the
session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from inference.engines.sampling import SamplingError, SamplingRules
from inference.prompting.heard import Heard, HeardUnit
from inference.prompting.persona import PersonaFields
from inference.protocol.errors import ErrorCode, ProtocolError
from inference.protocol.json_text import parse_json
from inference.protocol.messages import (
    Cancel,
    ChatPrompt,
    End,
    Followup,
    Message,
    Ping,
    Pong,
    Resume,
    Start,
    WarmHistory,
    WarmPersona,
)

MAX_MESSAGE_BYTES = 1024 * 1024
MAX_REQUEST_ID_CHARS = 128
MAX_SESSION_ID_CHARS = 256
MAX_USER_IDENTITY_CHARS = 64

GENDERS = {
    "female": "female", "woman": "female", "girl": "female", "f": "female",
    "male": "male", "man": "male", "boy": "male", "guy": "male", "m": "male",
}  # fmt: skip
MESSAGE_TYPES = (
    "start", "followup", "chat_prompt", "warm_persona", "warm_history", "cancel", "resume", "end", "ping", "pong",
)  # fmt: skip


class Envelope(NamedTuple):
    """A frame whose type is known and whose other fields are not checked yet."""

    kind: str
    fields: Mapping[str, Any]
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Decoder:
    """Decodes frames with the server's sampling ranges and sentinels.

    Args:
        sampling: the ranges of the sampling keys.
        personality_max_len: the length limit of ``personality`` in letters.
        end_sentinel: the raw text that means ``end``.
        cancel_sentinel: the raw text that means ``cancel``.
        max_bytes: the limit of one message in UTF-8 bytes.
    """

    sampling: SamplingRules
    personality_max_len: int = 20
    end_sentinel: str = "__END__"
    cancel_sentinel: str = "__CANCEL__"
    max_bytes: int = MAX_MESSAGE_BYTES

    def open(self, text: str | None) -> Envelope:
        """Return the type and the unchecked fields of one frame.

        Args:
            text: the frame's text; None for a binary frame.

        Raises:
            ProtocolError: ``invalid_message``. An unknown type is left to :meth:`decode`: the session charges the
                message to a rate window first.
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
        fields = parse_json(text)
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
        """Return the typed message.

        Raises:
            ProtocolError: the code of the first field that cannot be used.
        """
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
                return WarmHistory(request_id, text)
            case "cancel":
                return Cancel(request_id, _heard(fields))
            case "resume":
                return self._resume(fields, request_id)
            case "end":
                return End(request_id)
            case "ping":
                return Ping(request_id)
            case "pong":
                return Pong(request_id)
        raise ProtocolError(ErrorCode.UNKNOWN_MESSAGE_TYPE, f"unknown type; known are {', '.join(MESSAGE_TYPES)}")

    def _start(self, fields: Mapping[str, Any], request_id: str | None) -> Start:
        session_id = _session_id(fields, "start")
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
        return Start(
            request_id,
            session_id=session_id,
            utterance=utterance or "",
            persona=persona,
            history_text=history,
            tool_prompt=tool_prompt,
            sampling=sampling,
            heard=_heard(fields),
            user_identity=user_identity_of(fields.get("user_identity")),
        )

    def _resume(self, fields: Mapping[str, Any], request_id: str | None) -> Resume:
        session_id = _session_id(fields, "resume")
        turn, received = fields.get("turn"), _characters(fields, "received")
        if isinstance(turn, bool) or not isinstance(turn, int) or turn < 1:
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "resume needs turn, the number of a turn")
        if received is None:
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "resume needs received, a number of characters")
        return Resume(request_id, session_id, turn, received)

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
            # lower() may make a text longer ("İ"), so the limit holds for its result.
            if not word.isalpha() or len(word.lower()) > self.personality_max_len:
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


def _session_id(fields: Mapping[str, Any], kind: str) -> str:
    session_id = fields.get("session_id")
    if not isinstance(session_id, str) or not session_id.strip():
        raise ProtocolError(ErrorCode.MISSING_SESSION_ID, f"{kind} needs session_id, a string")
    if len(session_id) > MAX_SESSION_ID_CHARS:
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"session_id may have at most {MAX_SESSION_ID_CHARS} characters")
    return session_id


def _heard(fields: Mapping[str, Any]) -> Heard | None:
    return _characters(fields, "heard")


def _characters(fields: Mapping[str, Any], name: str) -> Heard | None:
    length = fields.get(name)
    if length is None:
        return None
    if isinstance(length, bool) or not isinstance(length, int) or length < 0:
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"{name} must be a number of characters")
    unit = fields.get(f"{name}_unit")
    if unit is None:
        return Heard(length)
    try:
        return Heard(length, HeardUnit(unit))
    except ValueError:
        allowed = ", ".join(HeardUnit)
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"{name}_unit must be one of {allowed}") from None


def user_identity_of(value: Any) -> str | None:
    """Return the user's name of a message's ``user_identity``; None where there is none.

    Raises:
        ProtocolError: ``invalid_user_identity``.
    """
    if value is None:
        return None
    name = value.strip() if isinstance(value, str) else value
    if not isinstance(name, str) or len(name) > MAX_USER_IDENTITY_CHARS or len(name.splitlines()) > 1:
        raise ProtocolError(
            ErrorCode.INVALID_USER_IDENTITY,
            f"user_identity must be one line of at most {MAX_USER_IDENTITY_CHARS} characters",
        )
    return name or None


def _request_id(value: Any) -> str | None:
    if isinstance(value, bool | int | float):
        value = orjson.dumps(value).decode()
    if value is None:
        return None
    if not isinstance(value, str):
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, "request_id must be a string or a number")
    if len(value) > MAX_REQUEST_ID_CHARS:
        raise ProtocolError(ErrorCode.INVALID_MESSAGE, f"request_id may have at most {MAX_REQUEST_ID_CHARS} characters")
    return value

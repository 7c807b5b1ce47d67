"""Errors in OpenAI's form: status, type, code, and the headers that clients read before they repeat a request."""

from __future__ import annotations

from typing import Any

import orjson

from inference.protocol.errors import ErrorCode, ProtocolError

INVALID_REQUEST = "invalid_request_error"
RATE_LIMIT = "rate_limit_error"
QUOTA = "insufficient_quota"
SERVER_ERROR = "server_error"
DEFAULT_RETRY_S = 1


class OpenAIError(Exception):
    """A refused or failed request.

    Args:
        status: the HTTP status.
        code: ``error.code``, which programs read.
        message: one sentence for the client.
        kind: ``error.type``.
        param: the field of the request that is at fault; None where there is none.
        retry_after_s: whole seconds after which the request may be repeated; None sends no header.
        may_retry: False sends ``x-should-retry: false``, which OpenAI's clients obey.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        kind: str = INVALID_REQUEST,
        param: str | None = None,
        retry_after_s: int | None = None,
        may_retry: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = str(code)
        self.message = message
        self.kind = kind
        self.param = param
        self.retry_after_s = retry_after_s
        self.may_retry = may_retry

    def fields(self) -> dict[str, Any]:
        """Return the ``error`` object."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}

    def body(self) -> bytes:
        """Return the body of the HTTP response."""
        return orjson.dumps({"error": self.fields()})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that tell a client whether and when to repeat the request."""
        headers = [] if self.retry_after_s is None else [(b"retry-after", str(self.retry_after_s).encode())]
        return headers if self.may_retry else [*headers, (b"x-should-retry", b"false")]


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> OpenAIError:
    """Return the error of a request that can never succeed."""
    return OpenAIError(400, code, message, param=param)


def from_protocol_error(error: ProtocolError) -> OpenAIError:
    """Return OpenAI's form of a domain error."""
    retry = error.details.get("retry_in")
    retry_s = None if retry is None else int(retry)
    message = error.message
    match error.code:
        case ErrorCode.AUTHENTICATION_FAILED | ErrorCode.KEY_REVOKED:
            return OpenAIError(401, "invalid_api_key", message, retry_after_s=retry_s)
        case ErrorCode.UNKNOWN_PERSONA:
            return OpenAIError(404, "model_not_found", message, param="model")
        case ErrorCode.INVALID_MESSAGE:
            return OpenAIError(400, "invalid_json", message)
        case ErrorCode.CHAT_PROMPT_TOO_LONG:
            return context_length_exceeded("the system text is longer than this server allows")
        case ErrorCode.TOOL_PROMPT_TOO_LONG:
            return OpenAIError(400, error.code, "the tools are longer than this server allows", param="tools")
        case ErrorCode.INVALID_USER_IDENTITY:
            return OpenAIError(400, error.code, message, param="user_identity")
        case ErrorCode.MESSAGE_RATE_LIMITED:
            return OpenAIError(429, "rate_limit_exceeded", message, kind=RATE_LIMIT, retry_after_s=retry_s)
        case ErrorCode.TOKEN_BUDGET_EXHAUSTED:
            return OpenAIError(429, QUOTA, message, kind=QUOTA, retry_after_s=retry_s, may_retry=False)
        case ErrorCode.INTERNAL_ERROR:
            reference = error.details.get("reference", "")
            return OpenAIError(500, error.code, f"{message}, reference {reference}", kind=SERVER_ERROR)
        case ErrorCode.GENERATION_TIMEOUT:
            return OpenAIError(504, error.code, message, kind=SERVER_ERROR)
    if error.code in _UNAVAILABLE:
        return OpenAIError(
            503, error.code, message, kind=SERVER_ERROR, retry_after_s=DEFAULT_RETRY_S if retry_s is None else retry_s
        )
    return OpenAIError(400, error.code, message)


def context_length_exceeded(message: str) -> OpenAIError:
    """Return the error of a request whose last message or system text exceeds the context."""
    return OpenAIError(400, "context_length_exceeded", message, param="messages")


def own_slots_taken() -> OpenAIError:
    """Return the error of a key that has as many responses and connections as it may have."""
    message = "this key has no free slot: too many requests run at once"
    return OpenAIError(429, "rate_limit_exceeded", message, kind=RATE_LIMIT, retry_after_s=DEFAULT_RETRY_S)


_UNAVAILABLE = frozenset({
    ErrorCode.SERVER_AT_CAPACITY, ErrorCode.SERVER_NOT_READY, ErrorCode.SERVER_DRAINING, ErrorCode.ENGINE_UNAVAILABLE,
})  # fmt: skip

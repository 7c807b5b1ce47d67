"""Frames to the client, encoded. One JSON object per text frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from inference.protocol.errors import ProtocolError


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

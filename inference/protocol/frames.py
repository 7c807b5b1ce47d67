"""Frames to the client, encoded. One JSON object per text frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from inference.protocol.errors import ProtocolError


def encode(kind: str, **fields: Any) -> str:
    """Return one frame. Fields that are None are left out."""
    return orjson.dumps({"type": kind, **{name: value for name, value in fields.items() if value is not None}}).decode()


def error_frame(error: ProtocolError, *, turn: int | None = None) -> str:
    """Return the answer to bad input: an ``error`` frame, or for ``chat_prompt`` an ``ack`` with ``ok: false``."""
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


def warmed(segment: str, text: str, request_id: str | None) -> str:
    """Return the answer to a warm-up of this text."""
    return encode("warmed", segment=segment, bytes=len(text.encode()), request_id=request_id)


def ack_chat_prompt(request_id: str | None, **fields: Any) -> str:
    """Return the ``ack`` of an accepted ``chat_prompt``; ``fields`` hold ``code``, ``message`` and the labels."""
    return encode("ack", **{"for": "chat_prompt"}, ok=True, request_id=request_id, **fields)


def ack_resume(session_id: str, turn: int, request_id: str | None) -> str:
    """Return the ``ack`` of a ``resume``; the frames that the client lacks follow."""
    return encode("ack", **{"for": "resume"}, ok=True, session_id=session_id, turn=turn, request_id=request_id)


def ack_start(
    frames: TurnFrames,
    *,
    session_id: str,
    gender: str | None,
    personality: str | None,
    has_chat_prompt: bool,
    resumed_turns: int | None = None,
) -> str:
    """Return the ``ack`` of a ``start``, with the server's local time.

    Args:
        resumed_turns: the exchanges of the kept session that goes on; None where no kept session does.
    """
    resumed = {} if resumed_turns is None else {"resumed": True, "turns": resumed_turns}
    return frames.ack(
        session_id=session_id,
        now=_local_time(datetime.now().astimezone()),
        gender=gender,
        personality=personality,
        chat_prompt=has_chat_prompt,
        **resumed,
    )


def _local_time(now: datetime) -> str:
    part = ("Night", "Morning", "Afternoon", "Evening")[(now.hour >= 5) + (now.hour >= 12) + (now.hour >= 17)]
    return f"{now:%d/%m/%Y %A %I:%M %p} ({part})"


def _ack_code(code: str) -> int:
    if code.endswith("_too_long"):
        return 413
    return 429 if code.endswith(("_rate_limited", "_exhausted")) else 400


@dataclass(slots=True)
class TurnFrames:
    """The frames of one turn. Each has the turn's number and, where the client gave one, the ``request_id``."""

    turn: int
    request_id: str | None
    _tail: str = field(init=False)

    def __post_init__(self) -> None:
        tail = {"turn": self.turn} if self.request_id is None else {"turn": self.turn, "request_id": self.request_id}
        self._tail = "," + orjson.dumps(tail).decode()[1:]

    def token(self, text: str) -> str:
        """Return a ``token`` frame. The keys are constant, so only the text is encoded."""
        return '{"type":"token","text":' + orjson.dumps(text).decode() + self._tail

    def ack(self, **fields: Any) -> str:
        """Return the turn's ``ack``; use :func:`ack_start`."""
        return self._frame("ack", {"for": "start", "ok": True, **fields})

    def toolcall(self, calls: list[dict[str, Any]], score: float | None = None) -> str:
        """Return the tool decision: no calls mean no. ``score`` is the probability of yes; None leaves it out."""
        known = {} if score is None else {"score": round(score, 4)}
        return self._frame("toolcall", {"status": "yes" if calls else "no", "raw": calls, **known})

    def final(self, text: str) -> str:
        """Return the whole delivered text."""
        return self._frame("final", {"normalized_text": text})

    def done(self, usage: Mapping[str, Any] | None = None, *, cancelled: bool = False) -> str:
        """Return the last frame: ``usage`` of a turn that ended by itself, or ``cancelled``."""
        return self._frame("done", {"cancelled": True} if cancelled else {"usage": usage})

    def error(self, code: str, message: str, **details: Any) -> str:
        """Return the error of a turn; ``done`` follows."""
        return self._frame("error", {"error_code": str(code), "message": message, **details})

    def _frame(self, kind: str, fields: Mapping[str, Any]) -> str:
        return orjson.dumps({"type": kind, **fields}).decode()[:-1] + self._tail

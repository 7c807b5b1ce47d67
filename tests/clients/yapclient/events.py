"""The server's frames as typed events. Every field except the type may be missing; it is then None, empty or False."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True)
class Event:
    """One frame. `raw` is the decoded JSON, `at` its arrival in seconds of `time.perf_counter`."""

    raw: dict[str, Any]
    at: float

    def text_of(self, key: str) -> str:
        """Return a text field; empty if the field is missing or not a string."""
        value = self.raw.get(key)
        return value if isinstance(value, str) else ""

    def number_of(self, key: str) -> float | None:
        """Return a numeric field; None if the field is missing or not a number."""
        value = self.raw.get(key)
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    @property
    def request_id(self) -> str | None:
        value = self.raw.get("request_id")
        return None if value is None else str(value)

    @property
    def turn(self) -> int | None:
        value = self.raw.get("turn")
        return value if isinstance(value, int) else None


class Ack(Event):
    """The server accepted a `start` or a `resume`, or answers a `chat_prompt`."""

    @property
    def answers(self) -> str:
        return self.text_of("for")

    @property
    def ok(self) -> bool:
        return bool(self.raw.get("ok", True))

    @property
    def code(self) -> int | None:
        value = self.number_of("code")
        return None if value is None else int(value)

    @property
    def error_code(self) -> str:
        return self.text_of("error_code")

    @property
    def message(self) -> str:
        return self.text_of("message")

    @property
    def retry_in(self) -> float | None:
        return self.number_of("retry_in")

    @property
    def resumed(self) -> bool:
        """Whether the turn goes on from the record of a lost connection."""
        return self.raw.get("resumed") is True

    @property
    def gender(self) -> str:
        return self.text_of("gender")

    @property
    def personality(self) -> str:
        return self.text_of("personality")


class ToolCall(Event):
    """The tool decision."""

    @property
    def yes(self) -> bool:
        return self.text_of("status").strip().lower() == "yes"

    @property
    def names(self) -> list[str]:
        """Names of the called functions."""
        raw = self.raw.get("raw")
        calls = raw if isinstance(raw, list) else []
        return [str(call["name"]) for call in calls if isinstance(call, dict) and call.get("name")]


class Token(Event):
    """A piece of the reply."""

    @property
    def text(self) -> str:
        return self.text_of("text")


class Final(Event):
    """The whole reply."""

    @property
    def text(self) -> str | None:
        value = self.raw.get("normalized_text")
        return value if isinstance(value, str) else None


class Done(Event):
    """The last frame of a turn."""

    @property
    def cancelled(self) -> bool:
        return self.raw.get("cancelled") is True

    @property
    def usage(self) -> dict[str, Any]:
        value = self.raw.get("usage")
        return value if isinstance(value, dict) else {}


class Error(Event):
    """A message was refused, or a turn failed."""

    @property
    def code(self) -> str:
        return self.text_of("error_code") or "unnamed_error"

    @property
    def message(self) -> str:
        return self.text_of("message")

    @property
    def retry_in(self) -> float | None:
        return self.number_of("retry_in")

    @property
    def capacity(self) -> dict[str, Any]:
        value = self.raw.get("capacity")
        return value if isinstance(value, dict) else {}


class Warmed(Event):
    """A prefix is in the cache."""


class Pong(Event):
    """The answer to a ping."""


class Closed(Event):
    """The server announces the close."""


class Draining(Event):
    """The server is stopping and closes the connection after this frame."""

    @property
    def reconnect_in(self) -> float | None:
        """Seconds after which another connection makes sense."""
        return self.number_of("reconnect_in")


class Unknown(Event):
    """A frame that this client does not know; newer servers may send some."""


_TYPES: dict[str, type[Event]] = {
    "ack": Ack,
    "toolcall": ToolCall,
    "token": Token,
    "final": Final,
    "done": Done,
    "error": Error,
    "warmed": Warmed,
    "pong": Pong,
    "connection_closed": Closed,
    "draining": Draining,
}


def decode(data: str | bytes, at: float) -> Event:
    """Decode one frame.

    Args:
        data: the frame.
        at: its arrival, seconds of `time.perf_counter`.

    Returns:
        The event; :class:`Unknown` if the frame cannot be decoded.
    """
    try:
        raw = orjson.loads(data)
    except orjson.JSONDecodeError:
        raw = None
    if not isinstance(raw, dict):
        return Unknown({}, at)
    kind = raw.get("type")
    return (_TYPES.get(kind, Unknown) if isinstance(kind, str) else Unknown)(raw, at)

"""Who is calling and what they may do, frozen at connect. No Django here: the hot path reads only this."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Window:
    """At most ``limit`` events in any ``seconds``; 0 in either switches the window off."""

    limit: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What one key may use. ``connections``, ``tokens_per_day`` and ``max_out`` are unlimited where None
    (``max_out`` then is the server's ``CHAT_MAX_OUT``)."""

    messages: Window
    cancels: Window
    persona_updates: Window
    connections: int | None = None
    tokens_per_day: int | None = None
    max_out: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated key. ``key_id`` is the row, or None for ``TEXT_API_KEY``; ``prefix`` is what logs may show.

    ``personas`` are the slugs this key may use, None for all. ``expires_at`` is in Unix seconds. ``fingerprint`` is the
    hash of the secret that was presented: after a rotation it tells the old secret's connections from the new one's.
    """

    key_id: int | None
    prefix: str
    name: str
    limits: Limits
    personas: frozenset[str] | None = None
    own_chat_prompt: bool = True
    own_tool_prompt: bool = True
    expires_at: float | None = None
    fingerprint: str = field(default="", repr=False)

"""The authenticated key of a connection or request, as frozen data. No Django: the hot path reads only this."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Window:
    """At most ``limit`` events in any ``seconds``; 0 in either switches the window off."""

    limit: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one key.

    ``connections`` and ``tokens_per_day`` are unlimited where None; ``max_out`` None means the server's
    ``CHAT_MAX_OUT``, in tokens.
    """

    messages: Window
    cancels: Window
    persona_updates: Window
    connections: int | None = None
    tokens_per_day: int | None = None
    max_out: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated key with its limits and rights.

    Attributes:
        key_id: Primary key of the row; None for ``TEXT_API_KEY`` and for a "Try it" ticket.
        prefix: The part of the key that logs and usage rows show.
        personas: Slugs that this key may use; None for all.
        may_read_metrics: Whether ``/metrics`` and the full ``/status`` answer this key.
        expires_at: Unix time in seconds; None for never.
        fingerprint: Hash of the secret that was presented. After a rotation it tells connections of the old secret
            from connections of the new one.
        operator_id: Primary key of the staff user behind a "Try it" ticket; None for every other caller.
    """

    key_id: int | None
    prefix: str
    name: str
    limits: Limits
    personas: frozenset[str] | None = None
    own_chat_prompt: bool = True
    own_tool_prompt: bool = True
    may_read_metrics: bool = False
    expires_at: float | None = None
    fingerprint: str = field(default="", repr=False)
    operator_id: int | None = None

    @property
    def identity(self) -> str:
        """The owner of this caller's sessions: a key keeps its identity when its secret or its rights change."""
        if self.key_id is not None:
            return f"key:{self.key_id}"
        return f"{self.prefix}:{self.operator_id or ''}:{self.fingerprint}"

"""The server's own limits, from its environment. They apply wherever a key's own limit is empty."""

from __future__ import annotations

from typing import Protocol

from accounts.callers import Limits, Window


class Settings(Protocol):
    """The variables of the typed environment that are read here."""

    @property
    def WS_MAX_MESSAGES_PER_WINDOW(self) -> int: ...  # noqa: N802
    @property
    def WS_MESSAGE_WINDOW_SECONDS(self) -> float: ...  # noqa: N802
    @property
    def WS_MAX_CANCELS_PER_WINDOW(self) -> int: ...  # noqa: N802
    @property
    def WS_CANCEL_WINDOW_SECONDS(self) -> float: ...  # noqa: N802
    @property
    def CHAT_PROMPT_UPDATE_MAX_PER_WINDOW(self) -> int: ...  # noqa: N802
    @property
    def CHAT_PROMPT_UPDATE_WINDOW_SECONDS(self) -> float: ...  # noqa: N802


def default_limits(env: Settings) -> Limits:
    """The limits of ``TEXT_API_KEY``, and of every key whose own limits are empty."""
    return Limits(
        messages=Window(env.WS_MAX_MESSAGES_PER_WINDOW, env.WS_MESSAGE_WINDOW_SECONDS),
        cancels=Window(env.WS_MAX_CANCELS_PER_WINDOW, env.WS_CANCEL_WINDOW_SECONDS),
        persona_updates=Window(env.CHAT_PROMPT_UPDATE_MAX_PER_WINDOW, env.CHAT_PROMPT_UPDATE_WINDOW_SECONDS),
    )

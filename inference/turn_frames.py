"""The frames that a turn sends, independent of the client's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class FramesOfTurn(Protocol):
    """Encodes the frames of one turn. A method that returns an empty string sends nothing.

    ``inference.protocol.frames.TurnFrames`` encodes them for ``/ws``, the modules of ``inference.openai`` for OpenAI's
    protocols.
    """

    def toolcall(self, calls: list[dict[str, Any]], score: float | None = None) -> str:
        """Return the tool decision; no calls mean no.

        Args:
            calls: each ``{"name": str, "arguments": object}``.
            score: the probability of yes; None where unknown.
        """
        ...

    def token(self, text: str) -> str:
        """Return the next text of the reply."""
        ...

    def final(self, text: str) -> str:
        """Return the end of the text: all of the delivered text."""
        ...

    def error(self, code: str, message: str, **details: Any) -> str:
        """Return the error of a turn that failed; :meth:`done` follows."""
        ...

    def done(self, usage: Mapping[str, Any] | None = None, *, cancelled: bool = False) -> str:
        """Return the last frame.

        Args:
            usage: ``GenerationUsage.as_frame`` of a turn that ended by itself.
            cancelled: whether the turn was cancelled; there is no ``usage`` then.
        """
        ...

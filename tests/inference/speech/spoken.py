"""The text for a voice of a whole reply."""

from __future__ import annotations

from inference.speech.output_style import OutputStyle
from inference.speech.speech_style import SpeechStyle


def pieces_of(style: OutputStyle, chunks: list[str]) -> list[str]:
    """What the style gives for each chunk and at the end."""
    return [*(style.feed(chunk) for chunk in chunks), style.finish()]


def spoken(text: str, *skipped: str) -> str:
    """The text for a voice, the same for every place to cut the text in two and for single characters."""
    kinds = frozenset(skipped)
    whole = "".join(pieces_of(SpeechStyle(kinds), [text]))
    for chunks in [list(text), *([text[:at], text[at:]] for at in range(1, len(text)))]:
        assert "".join(pieces_of(SpeechStyle(kinds), chunks)) == whole, chunks
    return whole

"""Output styles: the text of a reply as a client gets it. A style's output does not depend on how its input was cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from inference.phrases.automaton import Matcher
from inference.phrases.guard import Hit, PhraseAutomaton, PhraseGuard
from inference.speech.speech_style import SpeechStyle

__all__ = ["GuardedStyle", "OutputStyle", "RawStyle", "SpeechStyle", "output_style"]


class OutputStyle(Protocol):
    """The style of one reply. The texts that ``feed`` and ``finish`` return, joined, are the reply in that style."""

    def feed(self, text: str) -> str:
        """Take the next text of the reply; return the text that is settled now."""
        ...

    def finish(self) -> str:
        """End the reply; return the rest. Called once, last."""
        ...


class RawStyle:
    """Passes text through unchanged."""

    def feed(self, text: str) -> str:
        """Return ``text``."""
        return text

    def finish(self) -> str:
        """Return an empty string."""
        return ""


class GuardedStyle:
    """A style whose output passes the phrase guard: without its marks, ``Oh *honey*`` is a banned phrase.

    The engine's text has passed a guard before the style. A phrase that the style joins is cut, because generation
    cannot go back here. Behind a stop nothing is returned.

    Args:
        style: the style.
        automaton: the banned phrases.
        matchers: speaker labels and other texts that end the reply.
        before: the end of the text that the client has already; no phrase forms over the seam.

    Attributes:
        suppressed: phrases cut.
    """

    def __init__(
        self, style: OutputStyle, automaton: PhraseAutomaton, matchers: Sequence[Matcher] = (), before: str = ""
    ) -> None:
        self.suppressed = 0
        self._style = style
        self._guard = PhraseGuard(automaton, matchers)
        if before:
            self._guard.begin_behind(before)

    def feed(self, text: str) -> str:
        """Take the next text of the reply; return the text that is settled now."""
        return self._cut(*self._guard.feed(self._style.feed(text)))

    def finish(self) -> str:
        """End the reply; return the rest."""
        return self._cut(*self._guard.feed(self._style.finish())) + self._cut(*self._guard.finish())

    def _cut(self, released: str, hit: Hit | None) -> str:
        while hit is not None and not hit.stop:
            self.suppressed += not hit.label
            more, hit = self._guard.skip()
            released += more
        return released


def output_style(name: str, skipped_in_speech: frozenset[str] = frozenset()) -> OutputStyle:
    """Return a style for one reply.

    Args:
        name: ``raw`` or ``speech``.
        skipped_in_speech: kinds of text that ``speech`` leaves out: ``actions``, ``asides``, ``ooc``, ``code``.

    Raises:
        ValueError: there is no style of this name.
    """
    if name == "raw":
        return RawStyle()
    if name == "speech":
        return SpeechStyle(skipped_in_speech)
    raise ValueError(f"unknown output style {name!r}; there are raw, speech")

"""Text as a reader or a voice wants it, while it streams. A style's output never depends on how its input was cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from inference.phrases.automaton import Matcher
from inference.phrases.guard import Hit, PhraseAutomaton, PhraseGuard
from inference.speech.speech_style import SpeechStyle

__all__ = ["GuardedStyle", "OutputStyle", "RawStyle", "SpeechStyle", "output_style"]


class OutputStyle(Protocol):
    """The style of one reply: what the feeds and the finish give, joined, is the reply in that style."""

    def feed(self, text: str) -> str:
        """Take text and give what is settled by now."""
        ...

    def finish(self) -> str:
        """The reply has ended; give the rest. Called once, last."""
        ...


class RawStyle:
    """As generated."""

    def feed(self, text: str) -> str:
        """The text itself."""
        return text

    def finish(self) -> str:
        """Nothing: nothing was held."""
        return ""


class GuardedStyle:
    """A style whose own output is guarded: with marks out, ``Oh *honey*`` would become a listed phrase.

    What the style brings together is cut, for there is no token to go back to; ``suppressed`` counts it. Behind a stop
    nothing is given any more. The engine's text has passed a guard of its own before.
    """

    def __init__(self, style: OutputStyle, automaton: PhraseAutomaton, matchers: Sequence[Matcher] = ()) -> None:
        self.suppressed = 0
        self._style = style
        self._guard = PhraseGuard(automaton, matchers)

    def feed(self, text: str) -> str:
        """Take text and give what is settled by now."""
        return self._cut(*self._guard.feed(self._style.feed(text)))

    def finish(self) -> str:
        """The reply has ended; give the rest."""
        return self._cut(*self._guard.feed(self._style.finish())) + self._cut(*self._guard.finish())

    def _cut(self, given: str, hit: Hit | None) -> str:
        while hit is not None and not hit.stop:
            self.suppressed += not hit.label
            more, hit = self._guard.skip()
            given += more
        return given


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

"""A text through a guard, every phrase cut."""

from __future__ import annotations

from collections.abc import Sequence

from inference.phrases.automaton import Matcher, PhraseAutomaton
from inference.phrases.guard import PhraseGuard
from personas.snapshot import PhraseRule


def cut_phrases(
    text: str | Sequence[str], phrases: Sequence[str | PhraseRule] = (), matchers: Sequence[Matcher] = ()
) -> tuple[str, list[str]]:
    """Return what is left of a text (or of its pieces) and the phrases that were met, a stop among them."""
    rules = [phrase if isinstance(phrase, PhraseRule) else PhraseRule(phrase) for phrase in phrases]
    guard = PhraseGuard(PhraseAutomaton.build(rules), matchers)
    left, met = "", []
    for piece in [*([text] if isinstance(text, str) else text), None]:
        out, hit = guard.finish() if piece is None else guard.feed(piece)
        left += out
        while hit is not None:
            met.append(hit.phrase)
            if hit.stop:
                return left, met
            out, hit = guard.skip()
            left += out
    return left, met


def at_every_split(
    text: str, phrases: Sequence[str | PhraseRule] = (), matchers: Sequence[Matcher] = ()
) -> tuple[str, list[str]]:
    """The same, and the same for every place to cut the text in two, and for each character by itself."""
    whole = cut_phrases(text, phrases, matchers)
    for pieces in [list(text), *([text[:at], text[at:]] for at in range(1, len(text)))]:
        assert cut_phrases(pieces, phrases, matchers) == whole, pieces
    return whole

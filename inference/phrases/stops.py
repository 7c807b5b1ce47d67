"""Texts that end a reply, and the speaker labels that a model writes where it should only speak.

A chat model that saw scripts in training now and then writes ``Assistant: Hello`` or goes on with the user's next line.
These texts depend on who talks, so they are small automata of their own beside the phrase list's, made once per pair of
names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from inference.phrases.automaton import LATER_LINE_START, LINE_START, TEXT_START, Kind, Matcher, Pattern
from inference.phrases.units import EXACT, FOLDED, canonical
from personas.snapshot import PersonaSnapshot

USER, ASSISTANT = "User", "Assistant"
_COLONS = (":", "\uff1a")  # the second is the one of Chinese and Japanese text
_EMPHASIS = ("*", "**", "_", "__")


def _spellings(name: str, *, whole: bool) -> Iterator[str]:
    """Yield the label of a name as models write it: ``Mia:``, ``Mia :``, ``**Mia:**``, ``**Mia**:``.

    Args:
        name: the name, in units.
        whole: with the emphasis mark behind the colon, which a label that is removed takes along.
    """
    for colon in _COLONS:
        yield f"{name}{colon}"
        yield f"{name} {colon}"
    for mark in _EMPHASIS:
        yield f"{mark}{name}:{mark if whole else ''}"
        yield f"{mark}{name}{mark}:"


def _label_matcher(labels: Iterable[tuple[str, Kind, int]]) -> Matcher:
    """Return a matcher of labels.

    Args:
        labels: name, kind, and condition on the start of each label; names that cannot be seen are left out.
    """
    matcher = Matcher(FOLDED, line_start=True)
    for name, kind, start in labels:
        units = canonical(FOLDED.units(name.strip()))
        if units.strip():
            pattern = Pattern(f"{name.strip()}:", kind, 0, start)
            for spelling in _spellings(units, whole=kind is Kind.LABEL):
                matcher.add(spelling, pattern)
    return matcher


_GENERIC = _label_matcher([
    (ASSISTANT, Kind.LABEL, TEXT_START),
    (USER, Kind.STOP, LINE_START),
    (ASSISTANT, Kind.STOP, LATER_LINE_START),
])  # fmt: skip


@lru_cache(maxsize=4096)
def speaker_labels(user_name: str | None = None, character_names: tuple[str, ...] = ()) -> tuple[Matcher, ...]:
    """Return the matchers of the labels of one conversation, in any letter case.

    - The character's label (``Assistant:``, or its name) at the start of a reply is removed.
    - The user's label (``User:``, or the user's name) at the start of any line ends the reply, and so does
      ``Assistant:`` at the start of a later line.

    Args:
        user_name: how the user is called; None where the client gave no name.
        character_names: the names of the character; empty where the client wrote its own prompt.
    """
    labels = [(name, Kind.LABEL, TEXT_START) for name in dict.fromkeys(character_names)]
    if user_name is not None:
        labels.append((user_name, Kind.STOP, LINE_START))
    names = _label_matcher(labels)
    return (_GENERIC, names) if names.reach else (_GENERIC,)


def conversation_labels(persona: PersonaSnapshot | None, user_name: str | None) -> tuple[Matcher, ...]:
    """Return the matchers of speaker labels for the replies of one conversation.

    Args:
        persona: the stored persona, which may switch labels off; None where the client wrote its own prompt.
        user_name: how the user is called; None where the client gave no name.
    """
    if persona is None:
        return speaker_labels(user_name)
    return speaker_labels(user_name, (persona.name, persona.char)) if persona.label_stops else ()


def text_stops(texts: Iterable[str]) -> Matcher:
    """Return a matcher of texts that end a reply wherever they occur, in their own letter case."""
    matcher = Matcher(EXACT)
    for number, text in enumerate(dict.fromkeys(texts)):
        if units := canonical(EXACT.units(text)):
            matcher.add(units, Pattern(text, Kind.STOP, number))
    return matcher

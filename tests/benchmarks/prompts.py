"""The prompts: the same texts in the same order for every system, with all utterances different."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

_VOCABULARY = """after again always another answer around because before begin better between blue bring brother
carry change children city close cold colour country dinner early evening every family far father feel few field find
fire first follow friend garden give glass good great green grow half hand happy head hear heart help high home hope
hour house idea kind know large late laugh learn leave letter life light listen little long look make many maybe mean
minute moment money morning mother mountain move music name near need never new next night number often open order
other paper part people picture place plan play point question quick quiet rain read ready reason remember right river
road room run school sea second see seem sense short side simple sister sit sky sleep slow small smile song soon sound
speak stand start stay still story street strong summer sun sure table take talk tell think time today together
tomorrow town tree true try turn under until voice wait walk want warm watch water way week white window winter wish
woman wonder word work world write year yellow yesterday young"""
_WORDS = _VOCABULARY.split()


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text of a persona and the user's utterance."""

    persona: str
    utterance: str


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words)).capitalize() + "."


def persona(seed: int = 0, words: int = 180) -> str:
    """Create a persona.

    Args:
        words: approximate length.
        seed: the same seed gives the same persona.
    """
    return "You are a friendly character who likes to talk. " + _text(random.Random(f"persona {seed}"), words)


def prompts(seed: str, words: int = 16) -> Iterator[Prompt]:
    """Yield endless turns with one persona and new utterances: the persona is cached, the utterance is not."""
    chance, who = random.Random(seed), persona()
    while True:
        yield Prompt(who, _text(chance, words))


def newcomers(seed: str, words: int = 1200) -> Iterator[Prompt]:
    """Yield endless turns with a long, new persona each, so that nothing is cached."""
    chance = random.Random(seed)
    while True:
        yield Prompt(f"You are number {chance.random()}. {_text(chance, words)}", _text(chance, 16))

"""What the phrase guard costs: processor time per delta with 0, 20, 200 and 2,000 phrases, side by side in one run.

Run: ``python -m tests.benchmarks.phrases``
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence

from inference.phrases import PhraseAutomaton, PhraseGuard
from personas.snapshot import PhraseRule

SIZES = (0, 20, 200, 2000)
ROUNDS = 15
SOURCE = """well honey you know that the way I see it is a testament to what we have been through so let us talk about
it winks smiles now really on your mind tapestry of feelings journey delve into heart of matter dear friend it's not
just that but also this moment together"""
REPLY = (
    """I was thinking about what you said yesterday, and honestly? You're right. The thing is, I don't always know
how to put it - but when we talk, it gets easier. Tell me: what did you do at the weekend? Oh, and don't say "nothing",
because I won't believe you. It’s always something with you, isn't it? """.replace("\n", " ")
    * 4
)


def phrase_list(count: int) -> list[PhraseRule]:
    """Phrases of two to five common words, so that partial matches are frequent; some cased or whole-word."""
    chance, words = random.Random(7), SOURCE.split()
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[" ".join(chance.choices(words, k=chance.randint(2, 5)))] = None
    return [
        PhraseRule(text, case_sensitive=index % 20 == 3, whole_word=index % 20 == 13)
        for index, text in enumerate(texts)
    ]


def deltas(text: str) -> list[str]:
    """The text in pieces of one to seven characters, four on average: what tokens look like."""
    chance, at, pieces = random.Random(11), 0, []
    while at < len(text):
        size = chance.randint(1, 7)
        pieces.append(text[at : at + size])
        at += size
    return pieces


def microseconds(automaton: PhraseAutomaton, pieces: Sequence[str]) -> tuple[float, int]:
    """(processor microseconds per delta for one reply, phrases cut)."""
    cut = 0
    started = time.process_time_ns()
    guard = PhraseGuard(automaton)
    for piece in pieces:
        _, hit = guard.feed(piece)
        while hit is not None:
            cut += 1
            _, hit = guard.skip()
    guard.finish()
    return (time.process_time_ns() - started) / 1000 / len(pieces), cut


def main() -> None:
    pieces = deltas(REPLY)
    automata = {}
    for size in SIZES:
        rules = phrase_list(size)
        started = time.process_time()
        automata[size] = PhraseAutomaton.build(rules)
        print(f"{size:5d} phrases: built in {(time.process_time() - started) * 1000:6.1f} ms")
    samples: dict[int, list[float]] = {size: [] for size in SIZES}
    cuts = dict.fromkeys(SIZES, 0)
    for _ in range(ROUNDS):
        for size, automaton in automata.items():  # interleaved: what disturbs one disturbs all
            taken, cuts[size] = microseconds(automaton, pieces)
            samples[size].append(taken)
    print(f"{len(pieces)} deltas of {len(REPLY) / len(pieces):.1f} characters, {ROUNDS} rounds")
    for size, taken_all in samples.items():
        print(f"{size:5d} phrases: {statistics.median(taken_all):5.2f} µs/delta, {cuts[size]} cut")


if __name__ == "__main__":
    main()

"""Cost of banned phrases: processor time per delta with 0, 20, 200 and 2,000 phrases, side by side in one run.

Two measurements: the guard alone, and a whole reply (guard, boundaries, token ids) over an engine without cost. Both
look for speaker labels, too, as a turn does. The longest list that is taken is built once.

    python -m tests.benchmarks.phrases
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import psutil

from inference.engines.base import Delta, EngineRole, GenerationRequest
from inference.engines.sampling import Sampling
from inference.phrases.guard import PhraseAutomaton, PhraseGuard
from inference.phrases.stops import speaker_labels
from inference.reply import Reply
from inference.reply_plan import ReplyPlan
from personas.snapshot import PhraseRule
from tests.fakes.engine import tiny_tokenizer

SIZES = (0, 20, 200, 2000)
LONGEST = 100_000  # phrases of the longest list that is taken
LABELS = speaker_labels("Sam", ("Mia",))
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
    """Create phrases of two to five common words (frequent partial matches); some are cased or whole-word."""
    chance, words = random.Random(7), SOURCE.split()
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[" ".join(chance.choices(words, k=chance.randint(2, 5)))] = None
    return [
        PhraseRule(text, case_sensitive=index % 20 == 3, whole_word=index % 20 == 13)
        for index, text in enumerate(texts)
    ]


def deltas(text: str) -> list[str]:
    """Split a text into token-like pieces: words with the blank before them, long words in two, marks alone."""
    return re.findall(r" ?\w{1,7}| ?[^\w\s]|\s", text)


def microseconds(automaton: PhraseAutomaton, pieces: Sequence[str]) -> tuple[float, int]:
    """Measure one reply.

    Returns:
        (processor microseconds per delta, number of cut phrases).
    """
    cut = 0
    started = time.process_time_ns()
    guard = PhraseGuard(automaton, LABELS)
    for piece in pieces:
        _, hit = guard.feed(piece)
        while hit is not None:
            cut += 1
            _, hit = guard.skip()
    guard.finish()
    return (time.process_time_ns() - started) / 1000 / len(pieces), cut


class Recited:
    """An engine that returns the same deltas for every request, without waiting."""

    role, model, max_model_len, alive = EngineRole.CHAT, "recited", 1 << 20, True

    def __init__(self, pieces: Sequence[str]) -> None:
        self.tokenizer: Any = tiny_tokenizer()
        self._deltas = [Delta(piece, (index,), None, 1, 0) for index, piece in enumerate(pieces)]
        self._deltas[-1].finish_reason = "stop"

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        for delta in self._deltas:
            yield delta

    def stats(self) -> Mapping[str, Any]:
        return {}


async def reply_microseconds(automaton: PhraseAutomaton, engine: Recited, count: int) -> float:
    """Measure processor microseconds per delta of one reply in which no phrase completes."""
    plan = ReplyPlan("benchmark", Sampling(), count + 1, automaton, {}, matchers=LABELS)
    started = time.process_time_ns()
    async for _ in Reply(engine, (0,), plan).stream():
        pass
    return (time.process_time_ns() - started) / 1000 / count


def build_longest() -> None:
    """Print what the longest list costs to build."""
    rules = phrase_list(LONGEST)
    before, started = psutil.Process().memory_info().rss, time.process_time()
    automaton = PhraseAutomaton.build(rules)
    seconds, grown = time.process_time() - started, psutil.Process().memory_info().rss - before
    nodes = sum(len(matcher.goto) for matcher in automaton.matchers)
    print(f"{LONGEST} phrases: built in {seconds:.1f} s, {nodes} nodes, {grown / 1e6:.0f} MB")


def main() -> None:
    build_longest()
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
        for size, automaton in automata.items():  # interleaved, so that a disturbance affects all lists
            taken, cuts[size] = microseconds(automaton, pieces)
            samples[size].append(taken)
    print(f"{len(pieces)} deltas of {len(REPLY) / len(pieces):.1f} characters, {ROUNDS} rounds")
    replies = asyncio.run(whole_replies(automata, pieces))
    for size, taken_all in samples.items():
        guard, whole = statistics.median(taken_all), statistics.median(replies[size])
        more = whole - statistics.median(replies[0])
        print(f"{size:5d} phrases: guard {guard:5.2f} µs/delta ({cuts[size]} cut); reply {whole:5.2f} ({more:+.2f})")


async def whole_replies(automata: Mapping[int, PhraseAutomaton], pieces: Sequence[str]) -> dict[int, list[float]]:
    """Collect samples of :func:`reply_microseconds` for each list."""
    engine = Recited(pieces)
    samples: dict[int, list[float]] = {size: [] for size in automata}
    for _ in range(ROUNDS):
        for size, automaton in automata.items():
            samples[size].append(await reply_microseconds(automaton, engine, len(pieces)))
    return samples


if __name__ == "__main__":
    main()

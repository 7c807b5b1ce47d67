"""Cost of banned phrases on a real engine.

Measures the time to the first token with 0, 20, 200 and 2,000 phrases, and one retry in milliseconds and engine steps
with its prefix cache hit. All in one run on one engine.

    python -m tests.benchmarks.rewind [model folder]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from time import perf_counter

from inference.engines.base import Delta, Engine, EngineRole, GenerationRequest
from inference.engines.sampling import GREEDY
from inference.engines.service import vllm_service
from inference.engines.spec import DEMO_MODEL, EngineSpec
from inference.phrases.guard import PhraseAutomaton
from inference.prompting.chat_template import ChatFormat
from inference.reply import Reply
from inference.reply_plan import ReplyPlan
from personas.snapshot import PhraseRule
from tests.benchmarks.phrases import SIZES, phrase_list

CHECKOUT = Path(__file__).resolve().parents[2]
PERSONA = "You are Ada, keeper of a lighthouse. " + " ".join(f"Lamp {n} shines over bay {n + 3}." for n in range(24))
QUESTIONS = ("Tell me a story about a fox.", "What is the sea?", "How do I bake bread?", "Why is the sky blue?")
TOKENS = 24
ROUNDS = 4


@dataclass
class Counted:
    """An engine whose steps are counted: one per sampled token."""

    engine: Engine
    steps: int = 0
    prompts: list[int] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> object:
        return getattr(self.engine, name)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        self.prompts.append(len(request.prompt_ids))
        async with aclosing(self.engine.generate(request)) as deltas:
            async for delta in deltas:
                self.steps += len(delta.token_ids)
                if len(self.cached) < len(self.prompts):
                    self.cached.append(delta.cached_tokens)
                yield delta


@dataclass
class Said:
    """One reply; times in seconds."""

    reply: Reply
    engine: Counted
    first: float
    whole: float


async def say(engine: Engine, ids: Sequence[int], automaton: PhraseAutomaton, name: str) -> Said:
    """Generate one greedy reply of `TOKENS` tokens."""
    counted = Counted(engine)
    reply = Reply(counted, ids, ReplyPlan(name, GREEDY, TOKENS, automaton, {}))  # type: ignore[arg-type]
    first, started = 0.0, perf_counter()
    async with aclosing(reply.stream()) as pieces:
        async for _ in pieces:
            first = first or perf_counter() - started
    return Said(reply, counted, first, perf_counter() - started)


def untempting(rules: Sequence[PhraseRule], texts: Sequence[str]) -> list[PhraseRule]:
    """Select phrases that do not begin like one of these texts, because a partial match holds text."""
    return [rule for rule in rules if not any(text.casefold().startswith(rule.text[0]) for text in texts)]


async def first_tokens(engine: Engine, prompts: Sequence[list[int]]) -> None:
    texts = [
        (await say(engine, ids, PhraseAutomaton.build([]), f"text-{place}")).reply.released()
        for place, ids in enumerate(prompts)
    ]
    lists = {size: untempting(phrase_list(2 * size), texts)[:size] for size in SIZES}
    assert [len(rules) for rules in lists.values()] == list(SIZES)
    automata = {size: PhraseAutomaton.build(rules) for size, rules in lists.items()}
    first: dict[int, list[float]] = {size: [] for size in SIZES}
    pace: dict[int, list[float]] = {size: [] for size in SIZES}
    for number in range(ROUNDS):
        for size, automaton in automata.items():  # interleaved, so that a disturbance affects all lists
            for place, ids in enumerate(prompts):
                said = await say(engine, ids, automaton, f"first-{number}-{size}-{place}")
                first[size].append(said.first)
                if said.reply.suppressed == 0:
                    pace[size].append((said.whole - said.first) / (said.reply.completion_tokens - 1))
    for size in SIZES:
        print(
            f"{size:5d} phrases: first token {statistics.median(first[size]) * 1000:6.1f} ms, then"
            f" {statistics.median(pace[size] or [nan]) * 1000:5.2f} ms/token ({len(first[size])} replies)"
        )


def middle(engine: Engine, reply: Reply, width: int) -> str:
    """Return the text of `width` tokens in the middle of a reply."""
    ids = reply.released_ids(lambda text: engine.tokenizer.encode(text, add_special_tokens=False))
    return str(engine.tokenizer.decode(ids[TOKENS // 2 : TOKENS // 2 + width]))


async def rewinds(engine: Engine, prompts: Sequence[list[int]]) -> None:
    nothing = PhraseAutomaton.build([])
    for width in (1, 3):
        price: list[float] = []
        steps: list[float] = []
        hits: list[float] = []
        left: list[int] = []
        for number in range(ROUNDS):
            for place, ids in enumerate(prompts):
                name = f"rewind-{width}-{number}-{place}"
                plain = await say(engine, ids, nothing, f"{name}-plain")
                banned = PhraseAutomaton.build([PhraseRule(middle(engine, plain.reply, width))])
                said = await say(engine, ids, banned, f"{name}-banned")
                times, kept = said.reply.suppressed, said.reply.completion_tokens
                if not times or kept != plain.reply.completion_tokens:
                    continue
                price.append((said.whole - plain.whole) / times)
                steps.append((said.engine.steps - kept) / times)
                again = list(zip(said.engine.prompts, said.engine.cached, strict=True))[1:]
                hits += [cached / prompt for prompt, cached in again]
                left += [prompt - cached for prompt, cached in again]
        print(
            f"a phrase of {width} tokens: {statistics.median(price) * 1000:6.1f} ms and {statistics.mean(steps):.1f}"
            f" steps a rewind; {statistics.mean(hits):.1%} of the prompt from the cache,"
            f" at most {max(left)} tokens computed again ({len(price)} replies)"
        )


async def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else str(CHECKOUT / ".models" / DEMO_MODEL)
    service = vllm_service([EngineSpec(EngineRole.CHAT, model, 2048)], str(CHECKOUT))
    try:
        await service.ensure_running()
        engine = service.engine(EngineRole.CHAT)
        form = ChatFormat(engine.tokenizer)
        prompts = [[*form.persona(PERSONA), *form.turn(form.user(text, first=True), first=True)] for text in QUESTIONS]
        for place, ids in enumerate(prompts):  # from here on their prefixes are cached
            await say(engine, ids, PhraseAutomaton.build([]), f"warm-{place}")
        await first_tokens(engine, prompts)
        await rewinds(engine, prompts)
    finally:
        await service.aclose()


if __name__ == "__main__":
    asyncio.run(main())

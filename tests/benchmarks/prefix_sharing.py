"""Price of `PREFIX_SHARING=key` on a real engine: the first turn of a key with a stored persona, and its cache.

Measures the time to the first token and the cached tokens of a first turn. Cold: the key's own share of the cache is
empty. Warmed: the persona was computed into the key's share ahead. Shared: `PREFIX_SHARING=all`. All in one run on one
engine; the ways alternate, so that a disturbance meets all of them.

    python -m tests.benchmarks.prefix_sharing [model folder]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from inference.engines import model_config
from inference.engines.base import Engine, EngineRole, GenerationRequest
from inference.engines.sampling import GREEDY
from inference.engines.service import vllm_service
from inference.engines.spec import DEMO_MODEL, EngineSpec
from inference.prefix_cache import prime
from inference.prompting.chat_template import ChatFormat

CHECKOUT = Path(__file__).resolve().parents[2]
PERSONAS = (100, 450, 1700)  # tokens of the persona, with the template's opening
QUESTIONS = ("Tell me a story about a fox.", "What is the sea?", "How do I bake bread?", "Why is the sky blue?")
KEYS = 16  # first turns of each kind
CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class FirstTurn:
    """One first turn: seconds to the first token, and tokens of its prompt that the cache held."""

    seconds: float
    cached: int


async def first_turn(engine: Engine, ids: Sequence[int], salt: str | None) -> FirstTurn:
    """Generate one token."""
    request = GenerationRequest(f"turn-{uuid.uuid4().hex}", ids, 1, GREEDY, cache_salt=salt)
    started = perf_counter()
    async with aclosing(engine.generate(request)) as deltas:
        async for delta in deltas:
            return FirstTurn(perf_counter() - started, delta.cached_tokens)
    raise AssertionError("the engine said nothing")


def persona_ids(form: ChatFormat, tokens: int) -> list[int]:
    """Return a persona of exactly this many ids."""
    text = "You are Ada, keeper of a lighthouse. " + " ".join(f"Lamp {n} shines over bay {n + 3}." for n in range(400))
    return form.persona(text)[:tokens]


async def measure(engine: Engine, form: ChatFormat, tokens: int) -> dict[str, list[FirstTurn]]:
    """Return the first turns of `KEYS` keys for each way."""
    persona = persona_ids(form, tokens)
    texts = (f"{QUESTIONS[number % len(QUESTIONS)]} {number}" for number in range(KEYS))
    turns = [[*persona, *form.turn(form.user(text, first=True), first=True)] for text in texts]
    found: dict[str, list[FirstTurn]] = {"cold": [], "warmed": [], "shared": []}
    await prime(engine, persona)
    for number, ids in enumerate(turns):
        found["cold"].append(await first_turn(engine, ids, f"cold-{tokens}-{number}"))
        await prime(engine, persona, f"warmed-{tokens}-{number}")
        found["warmed"].append(await first_turn(engine, ids, f"warmed-{tokens}-{number}"))
        found["shared"].append(await first_turn(engine, ids, None))
    return found


def bytes_per_token(model: str, kv_dtype: str) -> int:
    """Return the bytes that one token takes in the cache."""
    values = model_config.read(model).kv_values
    assert values is not None
    return values * (1 if "fp8" in kv_dtype else 4 if "32" in kv_dtype else 2)


async def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else str(CHECKOUT / ".models" / DEMO_MODEL)
    service = vllm_service([EngineSpec(EngineRole.CHAT, model, CONTEXT)], str(CHECKOUT))
    try:
        await service.ensure_running()
        engine = service.engine(EngineRole.CHAT)
        form = ChatFormat(engine.tokenizer)
        launch = service.status()["chat"].launch
        size = bytes_per_token(model, f"{launch['dtype']} {launch['kv_dtype']}")
        print(f"{Path(model).name}, {dict(launch)}, {size / 1024:.1f} KiB of cache a token")
        for question in QUESTIONS:  # the first requests of an engine are slower
            await first_turn(engine, form.user(question, first=True), "start")
        for tokens in PERSONAS:
            found = await measure(engine, form, tokens)
            block = max(turn.cached for turn in found["warmed"])
            print(f"persona of {tokens} tokens: {block} in whole blocks, {block * size / 2**20:.1f} MiB for each key")
            for way, turns in found.items():
                milliseconds = sorted(turn.seconds * 1000 for turn in turns)
                print(
                    f"  {way:6s}: first token {statistics.median(milliseconds):6.1f} ms"
                    f" (p90 {milliseconds[int(len(milliseconds) * 0.9)]:6.1f}),"
                    f" cached {statistics.median(turn.cached for turn in turns):.0f} tokens ({len(turns)} keys)"
                )
    finally:
        await service.aclose()


if __name__ == "__main__":
    asyncio.run(main())

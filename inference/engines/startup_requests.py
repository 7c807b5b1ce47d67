"""Start-up requests: bind the engine to the serving loop and trigger lazy initialisation (kernels, grammar)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing

from inference.engines.base import PRIORITY_WARM, Engine, EngineDead, GenerationRequest
from inference.engines.managed_engine import OwnedEngine
from inference.engines.sampling import GREEDY

TIMEOUT_S = 120.0
LOOK_S = 0.5
SCHEMA = '{"type":"array","items":{"type":"object"},"maxItems":1}'

WarmPrompts = Callable[[Engine], Iterable[Sequence[int]]]


async def warm(engine: OwnedEngine, name: str, prompts: WarmPrompts) -> None:
    """Bind an engine to this loop and run its start-up requests.

    Raises:
        EngineDead: the engine died meanwhile.
        TimeoutError: the requests took longer than :data:`TIMEOUT_S` seconds.
    """
    async with asyncio.timeout(TIMEOUT_S):
        exercise = asyncio.create_task(_exercise(engine, name, prompts))
        try:
            # A call that runs while the engine dies may never return.
            while not (await asyncio.wait({exercise}, timeout=LOOK_S))[0]:
                if not engine.alive:
                    raise EngineDead("its process died while it was starting")
        finally:
            exercise.cancel()
        exercise.result()


async def _exercise(engine: OwnedEngine, name: str, prompts: WarmPrompts) -> None:
    await engine.bind()
    wanted = [list(ids) for ids in prompts(engine) if ids]
    wanted = wanted or [engine.tokenizer.encode("Hello", add_special_tokens=False)]
    for number, ids in enumerate(wanted):
        await _run(engine, GenerationRequest(f"{name}-warm-{number}", ids, 1, GREEDY, priority=PRIORITY_WARM))
    await _run(engine, GenerationRequest(f"{name}-warm-json", wanted[0], 2, GREEDY, json_schema=SCHEMA))


async def _run(engine: Engine, request: GenerationRequest) -> None:
    async with aclosing(engine.generate(request)) as deltas:
        async for _ in deltas:
            pass

"""Start-up requests: bind an engine's sockets to the serving loop and trigger its lazy initialisation (kernels, the
sampler, the grammar backend)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing

from inference.engines.base import LIKELY_TOKENS, PRIORITY_WARM, Engine, EngineDead, EngineRole, GenerationRequest
from inference.engines.managed_engine import OwnedEngine
from inference.engines.sampling import GREEDY, Sampling

TIMEOUT_S = 120.0
POLL_S = 0.5
# vLLM fixes the grammar backend with the first structured request of an engine.
SCHEMA = '{"type":"array","items":{"type":"object"},"maxItems":1}'

StartupPrompts = Callable[[Engine], Iterable[Sequence[int]]]


async def run_startup_requests(engine: OwnedEngine, name: str, prompts: StartupPrompts) -> None:
    """Bind an engine to the running loop and run its first requests.

    Args:
        engine: the new engine.
        name: begins the requests' ids.
        prompts: returns the prompts whose prefixes are computed; for none a short text is used.

    Raises:
        EngineDead: the engine died meanwhile.
        TimeoutError: the requests took longer than :data:`TIMEOUT_S` seconds.
    """
    async with asyncio.timeout(TIMEOUT_S):
        requests = asyncio.create_task(_run_all(engine, name, prompts))
        try:
            # A call that is in flight when the engine dies may never return.
            while not (await asyncio.wait({requests}, timeout=POLL_S))[0]:
                if not engine.alive:
                    raise EngineDead("its process died while it was starting")
        finally:
            requests.cancel()
        requests.result()


async def _run_all(engine: OwnedEngine, name: str, prompts: StartupPrompts) -> None:
    await engine.bind()
    wanted = [list(ids) for ids in prompts(engine) if ids]
    wanted = wanted or [engine.tokenizer.encode("Hello", add_special_tokens=False)]
    for number, ids in enumerate(wanted):
        await _run(engine, GenerationRequest(f"{name}-warm-{number}", ids, 1, GREEDY, priority=PRIORITY_WARM))
    if engine.role is EngineRole.CHAT:
        # A reply is drawn with penalties and biases, each of which has code of its own in the sampler.
        biases = {wanted[0][-1]: -1.0}
        drawn = GenerationRequest(f"{name}-warm-sampling", wanted[0], 2, Sampling(), biases, priority=PRIORITY_WARM)
        await _run(engine, drawn)
    # The probabilities of a tool decision have a kernel of their own, which vLLM compiles on a GPU at its first use.
    json = GenerationRequest(f"{name}-warm-json", wanted[0], 2, GREEDY, json_schema=SCHEMA, want_logprobs=LIKELY_TOKENS)
    await _run(engine, json)


async def _run(engine: Engine, request: GenerationRequest) -> None:
    async with aclosing(engine.generate(request)) as deltas:
        async for _ in deltas:
            pass

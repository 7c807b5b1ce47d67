"""Computes prompts into an engine's prefix cache: requests of one token at the lowest priority."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from inference.engines.base import PRIORITY_WARM, Engine, GenerationRequest
from inference.engines.replica_router import ReplicaRouter
from inference.engines.sampling import GREEDY


async def prime(
    engine: Engine, prompt_ids: Sequence[int], cache_salt: str | None = None, affinity: str | None = None
) -> None:
    """Compute a prompt once, behind every live turn that waits.

    Args:
        engine: the engine whose cache is filled.
        prompt_ids: token ids of the prompt, at least one.
        cache_salt: the key's share of the cache; None is the common share.
        affinity: the session whose replica computes the prompt; None: every replica computes it.

    Raises:
        EngineDead: the engine died.
    """
    engines = engine.each() if isinstance(engine, ReplicaRouter) and affinity is None else [engine]
    for one in engines:
        request = GenerationRequest(
            f"warm-{uuid.uuid4().hex}",
            prompt_ids,
            1,
            GREEDY,
            priority=PRIORITY_WARM,
            cache_salt=cache_salt,
            affinity=affinity,
        )
        async for _ in one.generate(request):
            pass

"""Priming the prefix cache: the shortest request that makes the engine compute a prompt."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from inference.engines.base import PRIORITY_WARM, Engine, GenerationRequest
from inference.engines.sampling import GREEDY


async def prime(engine: Engine, prompt_ids: Sequence[int]) -> None:
    """Compute ``prompt_ids`` once, after every live turn that waits. Raises :class:`EngineDead`."""
    request = GenerationRequest(f"warm-{uuid.uuid4().hex}", prompt_ids, 1, GREEDY, priority=PRIORITY_WARM)
    async for _ in engine.generate(request):
        pass

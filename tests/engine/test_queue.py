"""Scheduling in a real engine."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from inference.engines.base import EngineRole, GenerationRequest
from inference.engines.sampling import GREEDY
from inference.engines.service import vllm_service
from inference.engines.spec import EngineSpec

CHECKOUT = Path(__file__).resolve().parents[2]
TINY = CHECKOUT / ".models" / "tiny-random-llama"
LONG, OTHERS = 1500, 8

pytestmark = pytest.mark.engine


async def test_a_warm_turn_does_not_wait_for_long_new_prompts() -> None:
    """Eight long prompts are queued first; a turn that is cached except for its last words overtakes most of them."""
    service = vllm_service([EngineSpec(EngineRole.CHAT, str(TINY), 2048, max_num_seqs=OTHERS + 2)], str(CHECKOUT))
    began: list[str] = []
    try:
        await service.ensure_running()
        engine = service.engine(EngineRole.CHAT)

        async def first_token(name: str, prompt_ids: list[int]) -> None:
            async with aclosing(engine.generate(GenerationRequest(name, prompt_ids, 4, GREEDY))) as deltas:
                async for _ in deltas:
                    began.append(name)
                    break

        said = [100 + number % 300 for number in range(LONG)]
        await first_token("before", said)
        crowd = [
            asyncio.create_task(first_token(f"new {one}", [500 + (one + 7 * n) % 400 for n in range(LONG)]))
            for one in range(OTHERS)
        ]
        await asyncio.sleep(0)  # the long prompts are queued first
        await asyncio.gather(first_token("warm", [*said, 5, 6, 7]), *crowd)
    finally:
        await service.aclose()
    assert began[0] == "before"
    assert began.index("warm") <= OTHERS // 2, began

"""Several processes for one engine, with vLLM on a CPU: data parallel replicas, tensor parallel ranks."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from inference.engines.base import Delta, Engine, EngineDead, EngineRole, GenerationRequest
from inference.engines.device import probe
from inference.engines.replica_router import ReplicaRouter
from inference.engines.sampling import GREEDY
from inference.engines.service import vllm_service
from inference.engines.spec import EngineSpec
from tests.engine.waiting import until

CHECKOUT = Path(__file__).resolve().parents[2]
TINY = EngineSpec(EngineRole.CHAT, str(CHECKOUT / ".models" / "tiny-random-llama"), 1024, max_num_seqs=4)
TEXT = "A prefix that one session has said before and says again, word for word, in each of its turns. " * 3
_numbers = count()

pytestmark = [
    pytest.mark.engine,
    # vLLM leaves the sockets of an engine that was killed to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _sockets_are_collected_here() -> Iterator[None]:
    yield
    gc.collect()


async def generate(engine: Engine, session: str | None, *, max_tokens: int = 4) -> Delta:
    """Run one request and return its last delta."""
    ids = engine.tokenizer.encode(f"{session}: {TEXT}", add_special_tokens=False)
    request = GenerationRequest(f"replicas-{next(_numbers)}", ids, max_tokens, GREEDY, affinity=session)
    last: Delta | None = None
    async with aclosing(engine.generate(request)) as deltas:
        async for delta in deltas:
            last = delta
    assert last is not None
    return last


async def test_two_replicas_share_sessions_and_one_that_dies_is_replaced() -> None:
    service = vllm_service([replace(TINY, replica=index, replicas=2) for index in range(2)], str(CHECKOUT))
    try:
        await service.ensure_running()
        engine = service.engine(EngineRole.CHAT)
        assert isinstance(engine, ReplicaRouter)
        sessions = [f"session {number}" for number in range(4)]
        first = await asyncio.gather(*(generate(engine, session) for session in sessions))
        assert [delta.cached_tokens for delta in first] == [0] * 4
        where = {session: engine.replica_of(session) for session in sessions}
        assert sorted(str(index) for index in where.values()) == ["0", "0", "1", "1"], "both replicas are used"
        again = await asyncio.gather(*(generate(engine, session) for session in sessions))
        assert all(delta.cached_tokens >= 32 for delta in again), "a session stays where its prefix is"
        generated = [one.stats()["generated"] for one in engine.each()]
        assert all(tokens >= 8 for tokens in generated)
        status = service.status()["chat"]
        assert (list(status.replicas), status.launch["data_parallel"]) == (["ready", "ready"], 2)

        mine = next(session for session in sessions if where[session] == 0)
        other = next(session for session in sessions if where[session] == 1)
        running = [asyncio.create_task(generate(engine, name, max_tokens=700)) for name in (mine, other)]
        await asyncio.sleep(0.3)
        assert service.kill_processes(EngineRole.CHAT, replica=0) >= 1
        with pytest.raises(EngineDead):
            await running[0]
        assert (await running[1]).finish_reason == "length", "the other replica's turn goes on"
        assert service.ready
        assert service.degraded() == ["chat"]
        assert (await generate(engine, mine)).finish_reason == "length", "the session moved to the other replica"
        assert engine.replica_of(mine) == 1
        await until(lambda: not service.degraded(), 240)
        assert service.status()["chat"].rebuilds == 1
        assert len(engine.each()) == 2
    finally:
        await service.aclose()


async def test_two_tensor_parallel_processes_give_the_tokens_of_one(all_cores: Callable[[], None]) -> None:
    all_cores()
    if len(probe().cores) < 2:
        pytest.skip("tensor parallelism needs a core for each process")
    texts = []
    for size in (1, 2):
        all_cores()
        service = vllm_service([replace(TINY, tensor_parallel=size)], str(CHECKOUT))
        try:
            await service.ensure_running()
            engine = service.engine(EngineRole.CHAT)
            ids = engine.tokenizer.encode(TEXT, add_special_tokens=False)
            request = GenerationRequest(f"tensor-{size}", ids, 8, GREEDY)
            async with aclosing(engine.generate(request)) as deltas:
                texts.append("".join([delta.text async for delta in deltas]))
            assert service.status()["chat"].launch.get("tensor_parallel", 1) == size
        finally:
            await service.aclose()
    assert texts[0] == texts[1] != ""

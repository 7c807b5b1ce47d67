"""Several engines of one role: affinity, warm-ups of all, the death of one. With fakes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from inference.engines.base import EngineDead, EngineRole, GenerationRequest
from inference.engines.sampling import GREEDY
from inference.engines.service import EngineService
from inference.engines.spec import EngineSpec
from inference.prefix_cache import prime
from tests.engine.waiting import until
from tests.fakes.engine_factory import CHAT, Factory


def replicas(count: int) -> list[EngineSpec]:
    return [replace(CHAT, replica=number, replicas=count) for number in range(count)]


async def generate(service: EngineService, name: str, affinity: str | None) -> None:
    request = GenerationRequest(name, [1, 2, 3], 4, GREEDY, affinity=affinity)
    async for _ in service.engine(EngineRole.CHAT).generate(request):
        pass


async def test_sessions_stay_on_their_replica_and_new_ones_go_to_the_other(factory: Factory) -> None:
    service = EngineService(replicas(2), factory)
    await service.ensure_running()
    for turn in range(3):
        for session in ("a", "b", "c", "d"):
            await generate(service, f"{session}{turn}", session)
    where = [
        {request.affinity for request in engine.requests if request.affinity is not None} for engine in factory.made
    ]
    assert sorted(map(len, where)) == [2, 2]
    assert not where[0] & where[1]
    status = service.status()["chat"]
    assert (status.state, list(status.replicas)) == ("ready", ["ready", "ready"])
    assert set(service.registries()) == set()
    await service.aclose()


async def test_a_warm_up_without_a_session_is_computed_by_every_replica(factory: Factory) -> None:
    service = EngineService(replicas(2), factory)
    await service.ensure_running()
    before = [len(engine.requests) for engine in factory.made]
    await prime(service.engine(EngineRole.CHAT), [1, 2, 3])
    assert [len(engine.requests) for engine in factory.made] == [count + 1 for count in before]
    await prime(service.engine(EngineRole.CHAT), [1, 2, 3], affinity="a")
    assert sum(len(engine.requests) for engine in factory.made) == sum(before) + 3
    await service.aclose()


async def test_a_dead_replica_takes_only_its_own_sessions_along(factory: Factory) -> None:
    service = EngineService(replicas(2), factory, backoff_s=0.01)
    await service.ensure_running()
    await generate(service, "a0", "a")
    await generate(service, "b0", "b")
    first, second = factory.made
    home = first if any(request.affinity == "a" for request in first.requests) else second
    other = second if home is first else first
    home.step = other.step = asyncio.Semaphore(0)
    factory.hold.clear()
    running = [asyncio.create_task(generate(service, f"{name}1", name)) for name in ("a", "b")]
    await home.wait_for_requests(len(home.requests))
    await asyncio.sleep(0.05)
    home.die()
    with pytest.raises(EngineDead):
        await running[0]
    assert service.ready
    assert service.degraded() == ["chat"]
    other.step.release()
    other.step = None
    for _ in range(9):
        home.step.release()
    await running[1]
    await generate(service, "a2", "a")  # the session moves to the other replica
    assert other.requests[-1].affinity == "a"
    factory.hold.set()
    await until(lambda: not service.degraded())
    assert len(factory.made) == 3
    assert service.status()["chat"].rebuilds == 1
    await service.aclose()

"""Life of the engines: built off the loop, warmed, watched, replaced, shut down. With fakes."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from inference.engines.base import LIKELY_TOKENS, PRIORITY_WARM, EngineDead, EngineRole
from inference.engines.managed_engine import OwnedEngine
from inference.engines.sampling import GREEDY
from inference.engines.service import EngineService
from inference.engines.spec import EngineSpec, ModelRefused
from inference.engines.supervisor import ProcessSupervisor
from tests.engine.waiting import until
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_factory import CHAT, Factory

# -- starting ------------------------------------------------------------------------------------------------------


async def test_engines_are_built_one_after_the_other_and_off_the_loop(service: EngineService, factory: Factory) -> None:
    service.start_building()
    await service.ensure_running()
    assert service.ready
    assert [engine.role for engine in factory.made] == [EngineRole.CHAT, EngineRole.TOOL]
    assert factory.most_at_once == 1
    assert threading.current_thread() not in factory.threads
    assert service.engine(EngineRole.CHAT).model == "chat-model"
    assert service.engine(EngineRole.TOOL).model == "tool-model"


async def test_building_begins_before_there_is_a_loop(service: EngineService, factory: Factory) -> None:
    service.start_building()
    await until(lambda: len(factory.made) == 2)
    assert not service.ready
    assert [engine.bound for engine in factory.made] == [0, 0]
    await service.ensure_running()
    assert [engine.bound for engine in factory.made] == [1, 1]


async def test_concurrent_callers_share_one_start(service: EngineService, factory: Factory) -> None:
    await asyncio.gather(*(service.ensure_running() for _ in range(5)))
    service.start_building()
    await service.ensure_running()
    assert len(factory.made) == 2


async def test_a_caller_that_gives_up_does_not_take_the_start_with_it(service: EngineService, factory: Factory) -> None:
    factory.hold.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(service.ensure_running(), 0.05)
    factory.hold.set()
    await service.ensure_running()
    assert service.ready


async def test_while_it_starts_it_says_so(service: EngineService, factory: Factory) -> None:
    factory.hold.clear()
    service.start_building()
    await until(lambda: factory.threads)
    assert not service.ready
    assert service.retry_in > 1
    with pytest.raises(EngineDead, match="starting: loading chat-model"):
        _ = service.engine(EngineRole.CHAT)
    status = service.status()
    assert (status["chat"].state, status["tool"].state) == ("starting", "starting")
    assert status["tool"].reason == "waiting to be built"


async def test_an_engine_is_warmed_with_the_given_prompts_a_drawn_and_a_structured_request(
    factory: Factory,
) -> None:
    service = EngineService([CHAT], factory, startup_prompts=lambda engine: [[1, 2, 3], [4, 5]])
    await service.ensure_running()
    requests = factory.made[0].requests
    assert [list(request.prompt_ids) for request in requests] == [[1, 2, 3], [4, 5], [1, 2, 3], [1, 2, 3]]
    assert [request.json_schema is None for request in requests] == [True, True, True, False]
    assert {request.priority for request in requests[:3]} == {PRIORITY_WARM}
    assert [request.sampling == GREEDY for request in requests] == [True, True, False, True]
    assert [request.want_logprobs for request in requests][2:] == [0, LIKELY_TOKENS]  # vLLM compiles their kernel once
    await service.aclose()


async def test_status_of_a_ready_engine(service: EngineService) -> None:
    await service.ensure_running()
    told = service.status()["chat"].as_json()
    assert (told["role"], told["model"], told["state"], told["reason"]) == ("chat", "chat-model", "ready", "")
    assert (told["max_model_len"], told["dtype"], told["quantization"]) == (2048, "float32", None)
    assert told["stats"]["running"] == 0
    assert told["since"] <= time.time()


async def test_an_engine_that_is_not_deployed(factory: Factory) -> None:
    service = EngineService([CHAT], factory)
    assert service.deployed(EngineRole.CHAT)
    assert not service.deployed(EngineRole.TOOL)
    with pytest.raises(EngineDead, match="no tool engine is deployed"):
        _ = service.engine(EngineRole.TOOL)


async def test_a_refused_model_is_the_reason_and_ends_what_was_built(service: EngineService, factory: Factory) -> None:
    factory.errors = [None, ModelRefused("tool model x: too large")]
    for _ in range(2):
        with pytest.raises(EngineDead, match=r"^tool model x: too large$"):
            await service.ensure_running()
    assert service.failure == "tool model x: too large"
    assert [engine.stopped for engine in factory.made] == [True]
    assert {status.state for status in service.status().values()} == {"dead"}


async def test_a_death_while_it_warms_is_fatal(factory: Factory) -> None:
    class Dying(FakeEngine):
        async def bind(self) -> None:
            self.die()
            await asyncio.Event().wait()

    service = EngineService([CHAT], lambda spec: Dying(spec.role))
    with pytest.raises(EngineDead, match="died while it was starting"):
        await service.ensure_running()
    assert service.failure is not None
    await service.aclose()


# -- watching ------------------------------------------------------------------------------------------------------


async def test_a_dead_engine_is_noticed_and_replaced(service: EngineService, factory: Factory) -> None:
    await service.ensure_running()
    chat = service.engine(EngineRole.CHAT)
    factory.hold.clear()
    factory.made[1].die()
    assert await until(lambda: service.status()["tool"].state != "ready") < 1.0
    with pytest.raises(EngineDead):
        _ = service.engine(EngineRole.TOOL)
    assert service.engine(EngineRole.CHAT) is chat
    assert service.retry_in >= 1
    assert service.ready, "turns go on; their tool decisions are no"
    assert service.degraded() == ["tool"]
    factory.hold.set()
    await until(lambda: not service.degraded())
    assert service.engine(EngineRole.TOOL) is factory.made[2]
    assert factory.made[1].stopped
    assert service.status()["tool"].rebuilds == 1


async def test_rebuilding_is_tried_again_and_then_given_up(service: EngineService, factory: Factory) -> None:
    await service.ensure_running()
    factory.errors = [RuntimeError("out of memory\ntrace"), RuntimeError("out of memory")]
    factory.made[0].die()
    await until(lambda: service.ready and len(factory.made) == 3)
    factory.errors = [RuntimeError("out of memory") for _ in range(9)]
    factory.made[2].die()
    await until(lambda: service.failure)
    assert service.failure == "the chat engine could not be replaced: out of memory"
    assert service.status()["chat"].state == "dead"
    assert service.engine(EngineRole.TOOL).alive


async def test_a_tool_engine_that_does_not_come_back_leaves_the_turns_running(
    service: EngineService, factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    await service.ensure_running()
    factory.errors = [RuntimeError("out of memory") for _ in range(9)]
    factory.made[1].die()
    await until(lambda: "could not be replaced" in caplog.text)
    assert service.ready
    assert service.failure is None
    assert service.degraded() == ["tool"]


async def test_a_dead_chat_engine_is_not_ready(service: EngineService, factory: Factory) -> None:
    await service.ensure_running()
    factory.hold.clear()
    factory.made[0].die()
    assert not service.ready
    factory.hold.set()
    await until(lambda: service.ready)


async def test_two_dead_engines_are_rebuilt_one_at_a_time(service: EngineService, factory: Factory) -> None:
    await service.ensure_running()
    for engine in list(factory.made):
        engine.die()
    assert not service.ready
    await until(lambda: service.ready and not service.degraded())
    assert len(factory.made) == 4
    assert factory.most_at_once == 1


class Processes(ProcessSupervisor):
    """A supervisor without processes; the first kill sets `killed`."""

    def __init__(self, killed: threading.Event) -> None:
        super().__init__(".")
        self.killed = killed

    def start(self) -> None: ...

    def kill(self, engine: str) -> int:
        self.killed.set()
        return 1

    def kill_all(self) -> int:
        return self.kill("")


async def test_a_rebuild_that_hangs_loses_its_processes_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = threading.Event()
    builds = 0

    def build(spec: EngineSpec) -> OwnedEngine:
        nonlocal builds
        builds += 1
        if builds == 2:
            killed.clear()
            assert killed.wait(10)
            raise RuntimeError("its processes are gone")
        return FakeEngine(spec.role)

    monkeypatch.setattr("inference.engines.lifecycle.POLL_S", 0.02)
    service = EngineService([CHAT], build, supervisor=Processes(killed), backoff_s=0.01, rebuild_timeout_s=0.05)
    await service.ensure_running()
    service.engine(EngineRole.CHAT).die()  # type: ignore[attr-defined]
    await until(lambda: service.ready)
    assert builds == 3
    await service.aclose()


# -- ending --------------------------------------------------------------------------------------------------------


async def test_closing_ends_the_engines_and_is_final(service: EngineService, factory: Factory) -> None:
    await service.ensure_running()
    await service.aclose()
    await service.aclose()
    assert [engine.stopped for engine in factory.made] == [True, True]
    assert {status.state for status in service.status().values()} == {"stopped"}
    with pytest.raises(EngineDead, match="stopped"):
        _ = service.engine(EngineRole.CHAT)


async def test_closing_while_it_starts(service: EngineService, factory: Factory) -> None:
    factory.hold.clear()
    waiting = asyncio.create_task(service.ensure_running())
    await until(lambda: factory.threads)
    closing = asyncio.create_task(service.aclose())
    with pytest.raises(EngineDead, match="stopping"):
        await waiting
    factory.hold.set()
    await closing
    assert [engine.stopped for engine in factory.made] == [True]


async def test_closing_what_never_started(factory: Factory) -> None:
    service = EngineService([CHAT], factory)
    await service.aclose()
    assert factory.made == []

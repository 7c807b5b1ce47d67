from __future__ import annotations

import asyncio

from prometheus_client import generate_latest

from inference.metrics import Metrics
from inference.session_registry import SessionRegistry
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import START, Line, talking


async def test_who_is_connected() -> None:
    chat = FakeEngine(step=asyncio.Semaphore(0))
    registry = SessionRegistry()
    async with talking(chat) as line:
        other = Line(line.serving)
        for session in (line.session, other.session):
            registry.add(session)
        assert (len(registry), registry.running) == (2, 0)
        assert set(registry) == {line.session, other.session}
        metrics = Metrics()
        metrics.register_gauges(lambda: registry.connections, lambda: registry.running)
        await line.say(START)
        assert registry.running == 1
        told = generate_latest(metrics.registry).decode().splitlines()
        assert {"yap_connections 2.0", "yap_turns_running 1.0"} <= set(told)
        for live in registry:  # may change while it is walked
            registry.remove(live)
            registry.remove(live)
        assert (len(registry), registry.running) == (0, 0)


async def test_draining_waits_for_turns_and_closes_all() -> None:
    chat = FakeEngine(step=asyncio.Semaphore(0))
    registry = SessionRegistry()
    await registry.drain(1.0)  # nobody is there
    async with talking(chat) as busy:
        idle, slow = Line(busy.serving), Line(busy.serving)
        for line in (busy, idle, slow):
            registry.add(line.session)
        await busy.say(START)
        await chat.wait_for_requests(1)
        draining = asyncio.create_task(registry.drain(30.0))
        await idle.until(lambda _: idle.closed is not None)
        assert busy.closed is None
        assert chat.step is not None
        for _ in range(100):
            chat.step.release()
        await draining
        assert [line.closed for line in (busy, idle, slow)] == [1012] * 3
        assert busy.types()[-3:] == ["final", "done", "draining"]


async def test_what_is_left_after_draining_is_cancelled() -> None:
    chat = FakeEngine(step=asyncio.Semaphore(0))
    registry = SessionRegistry()
    async with talking(chat) as line:
        registry.add(line.session)
        await line.say(START)
        await registry.drain(0.02)
        assert line.frames[-2] == {"type": "done", "cancelled": True, "turn": 1}
        assert line.frames[-1]["type"] == "draining"
        assert line.closed == 1012

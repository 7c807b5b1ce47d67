"""Processor time that the report of one process takes from the serving loop, once per second."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

from accounts.connection_slots import MemoryConnectionSlots
from accounts.redis_connection import SharedRedis
from accounts.redis_process_reports import RedisProcessReports
from inference.engines.base import EngineRole
from inference.http.views import ServerStatus
from inference.process_report import encode
from inference.session_registry import SessionRegistry
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import make_serving


class _Session:
    running = True
    within_connection = False


@dataclass
class ReportCost:
    """Of one report by a process with two engines and ``sessions`` sessions.

    ``others_us`` is the time to read and decode the reports of nine other processes, for one view of the dashboard.
    """

    sessions: int
    bytes: int
    cpu_us: float
    others_us: float


async def report_cost(url: str, sessions: int = 64, repeat: int = 300) -> ReportCost:
    """Measure on this loop, against a real Redis.

    Args:
        url: Of an empty Redis.
        sessions: How many sessions the process has.
        repeat: Reports; the median counts.
    """
    serving = await make_serving(FakeEngine(), FakeEngine(EngineRole.TOOL))
    registry: Any = SessionRegistry()
    for _ in range(sessions):
        registry.add(_Session())
    clients = [SharedRedis(url) for _ in range(10)]
    reports = [RedisProcessReports(client) for client in clients]
    status = ServerStatus(serving, registry, MemoryConnectionSlots(sessions), "1.1.0", reports=reports[0])
    try:
        for client, each in zip(clients, reports, strict=True):
            each.publish(lambda: encode(status.report()))
            client.start()
        async with asyncio.timeout(10):
            while len(await status.processes()) < len(clients):  # noqa: ASYNC110 - other processes' heartbeats
                await asyncio.sleep(0.05)
        beats = [await _cpu_us(reports[0].beat) for _ in range(repeat)]
        reads = [await _cpu_us(status.processes) for _ in range(repeat)]
    finally:
        for client in clients:
            await client.aclose()
        await serving.engines.aclose()
    return ReportCost(len(registry), len(encode(status.report())), statistics.median(beats), statistics.median(reads))


async def _cpu_us(call: Any) -> float:
    began = time.thread_time()
    await call()
    return (time.thread_time() - began) * 1e6

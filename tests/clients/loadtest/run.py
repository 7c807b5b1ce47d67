"""Runs a plan: a closed loop, or an open loop at its arrival times."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from loadtest.plan import Plan
from loadtest.record import TurnRecord
from loadtest.session import Session


async def carry_out(plan: Plan, on_turn: Callable[[TurnRecord], None], on_session: Callable[[], None]) -> None:
    """Run all sessions of a plan.

    In an open loop, a session that finds `at_once` others running waits. Its times still count from its planned
    start.

    Args:
        plan: the plan.
        on_turn: called with the record of each turn.
        on_session: called after each session.
    """
    slots = asyncio.Semaphore(plan.at_once) if plan.at_once else contextlib.nullcontext()
    origin = time.perf_counter()

    async def one(number: int, after: float) -> None:
        await asyncio.sleep(max(origin + after - time.perf_counter(), 0))
        async with slots:
            meant = time.perf_counter() if plan.rate is None else origin + after
            await Session(plan, number, origin, meant, on_turn).run()
        on_session()

    tasks = [asyncio.create_task(one(number, after)) for number, after in enumerate(plan.arrivals())]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # each session closes its connection first

"""Runs a plan: closed loop, or open loop at its arrival times."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from loadtest.plan import Plan
from loadtest.record import TurnRecord
from loadtest.session import Session


async def carry_out(plan: Plan, on_turn: Callable[[TurnRecord], None], on_session: Callable[[], None]) -> None:
    """Run all sessions.

    In the open loop a session that finds ``at_once`` others running waits its turn, and its times count from when it
    was meant to begin all the same: what one session waits for is not taken off the next one's account.
    """
    places = asyncio.Semaphore(plan.at_once) if plan.at_once else contextlib.nullcontext()
    origin = time.perf_counter()

    async def one(number: int, after: float) -> None:
        await asyncio.sleep(max(origin + after - time.perf_counter(), 0))
        async with places:
            meant = time.perf_counter() if plan.rate is None else origin + after
            await Session(plan, number, origin, meant, on_turn).run()
        on_session()

    tasks = [asyncio.create_task(one(number, after)) for number, after in enumerate(plan.arrivals())]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # each hangs up before it ends

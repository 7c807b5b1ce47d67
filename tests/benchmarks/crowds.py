"""Scenarios with many connections: long prompts beside streams, idle connections, a storm of handshakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter
from typing import Any

from tests.benchmarks.lines import Line
from tests.benchmarks.processes import anonymous_bytes
from tests.benchmarks.prompts import newcomers, prompts

MakeLine = Callable[[], Line]
Numbers = dict[str, Any]
PAUSE_S = 0.03  # until the engine is idle
RAMP_S = 1.0  # before the window starts


def gaps(times: list[float]) -> list[float]:
    """Return the differences between neighbours, in seconds."""
    return [later - earlier for earlier, later in pairwise(times)]


async def crowd(make: MakeLine, pid: int, *, seed: str, others: int, repeat: int, streams: int = 0) -> Numbers:
    """A warm client speaks just after `others` sent long, new prompts, beside `streams` that talk without pause."""
    over = asyncio.Event()
    talking = [asyncio.create_task(_talk(make, f"{seed} stream {number}", over)) for number in range(streams)]
    line, crowd_lines = make(), [make() for _ in range(others)]
    asked, new = prompts(seed), newcomers(seed)
    ttft: list[float] = []
    theirs: list[float] = []
    for turn in range(repeat + 1):
        for each in (line, *crowd_lines):
            await each.open()
        if not turn:  # compute the persona once
            await line.say(next(asked))
            await line.arrived(1)
            line.cancel()
            await line.ended()
            await line.open()
            continue
        for each in crowd_lines:
            await each.say(next(new))
        await line.say(next(asked))
        await line.arrived(1)
        for each in crowd_lines:
            await each.arrived(1)
        for each in (line, *crowd_lines):
            if each.timeline.ended is None:
                each.cancel()
            await each.ended()
        if line.timeline.arrivals:
            ttft.append(line.timeline.arrivals[0] - line.timeline.sent)
        theirs += [each.timeline.arrivals[0] - each.timeline.sent for each in crowd_lines if each.timeline.arrivals]
        await asyncio.sleep(2 * PAUSE_S)
    for each in (line, *crowd_lines):
        await each.close()
    over.set()
    stream_gaps = [gap for times in [await task for task in talking] for gap in gaps(times)]
    return {"ttft": ttft, "others_ttft": theirs, "stream_gap": stream_gaps}


async def weight(make: MakeLine, pid: int, *, seed: str, connections: int) -> Numbers:
    """Memory of an idle connection. Needs a fresh process; a used one has spare memory."""
    first = make()
    await first.open()
    before = anonymous_bytes(pid)
    lines = [make() for _ in range(connections)]
    for line in lines:
        await line.open()
    await asyncio.sleep(0.5)
    grown = anonymous_bytes(pid) - before
    for line in (first, *lines):
        await line.close()
    return {"memory_per_connection": grown / max(1, connections)}


async def idle(make: MakeLine, pid: int, *, seed: str, connections: int, seconds: float, rounds: int) -> Numbers:
    """One client streams, alone and beside `connections` idle ones."""
    quiet: list[float] = []
    beside: list[float] = []
    for number in range(rounds):
        quiet += await _stream(make, f"{seed} quiet {number}", seconds)
        lines = [make() for _ in range(connections)]
        for line in lines:
            await line.open()
        await asyncio.sleep(0.5)
        beside += await _stream(make, f"{seed} beside {number}", seconds)
        for line in lines:
            await line.close()
        await asyncio.sleep(1.0)
    return {"quiet_gap": quiet, "beside_gap": beside}


async def storm(
    make: MakeLine, pid: int, *, seed: str, strangers: MakeLine, handshakes: int, streams: int, seconds: float
) -> Numbers:
    """`handshakes` within one second, a quarter of them with a bad key, beside running `streams`.

    Measures seconds until each handshake was accepted or refused, and the gaps of the streams.
    """
    over = asyncio.Event()

    async def knock(at: float, number: int) -> tuple[float, str]:
        await asyncio.sleep(at)
        began = perf_counter()
        line: Any = strangers() if number % 4 == 3 else make()
        try:
            await line.open()
            answer: str = await line.admitted()
        except (OSError, TimeoutError) as error:
            answer = repr(error)
        took = perf_counter() - began
        guests.append(line)
        return took, answer

    guests: list[Any] = []
    talking = [asyncio.create_task(_talk(make, f"{seed} {number}", over)) for number in range(streams)]
    await asyncio.sleep(RAMP_S)
    began = perf_counter()
    await asyncio.sleep(seconds)
    storming = perf_counter()
    knocks = await asyncio.gather(*(knock(number / handshakes, number) for number in range(handshakes)))
    calm = perf_counter()
    over.set()
    times = [await task for task in talking]
    for guest in guests:
        await guest.close()
    await asyncio.sleep(0.5)
    answers = [answer for _, answer in knocks]
    return {
        "answered": [took for took, _ in knocks],
        "answers": {answer: answers.count(answer) for answer in set(answers)},
        "quiet_gap": [gap for each in times for gap in gaps([at for at in each if began <= at < storming])],
        "storm_gap": [gap for each in times for gap in gaps([at for at in each if storming <= at < calm])],
    }


async def _talk(make: MakeLine, seed: str, over: asyncio.Event) -> list[float]:
    """Collect arrival times of one client that talks until `over`; its last turn is cut short."""
    line, asked, times = make(), prompts(seed), list[float]()
    stopping = asyncio.create_task(over.wait())
    while not over.is_set():
        await line.open()
        await line.say(next(asked))
        ended = asyncio.create_task(line.ended())
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            line.cancel()
        times += (await ended).arrivals
    await line.close()
    return times


async def _stream(make: MakeLine, seed: str, seconds: float) -> list[float]:
    """Collect gaps of one client that talks for about `seconds`."""
    line, asked, found = make(), prompts(seed), list[float]()
    until = perf_counter() + seconds
    while perf_counter() < until:
        await line.open()
        await line.say(next(asked))
        found += gaps((await line.ended()).arrivals)
    await line.close()
    return found

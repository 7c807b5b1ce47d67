"""The scenarios. Each returns plain numbers in seconds, bytes and counts.

Every function runs in the process of the clients (for the raw engine: in its own process). A scenario only knows how
to open a line to the system and which process serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from time import perf_counter, process_time
from typing import Any

from tests.benchmarks.lines import Line, Timeline
from tests.benchmarks.processes import anonymous_bytes, cpu_seconds
from tests.benchmarks.prompts import Prompt, newcomers, persona, prompts

MakeLine = Callable[[], Line]
Numbers = dict[str, Any]
PAUSE_S = 0.03  # until the engine is idle
RAMP_S = 1.0  # before the window starts


async def first_token(make: MakeLine, pid: int, *, seed: str, turns: int) -> Numbers:
    """One client on an idle server with a warm persona: seconds to the first content, and from a cancel to the end."""
    line = make()
    asked = prompts(seed)
    ttft: list[float] = []
    done: list[float] = []
    for turn in range(turns + 2):
        await line.open()
        await line.say(next(asked))
        await line.arrived(2)
        line.cancel()
        timeline = await line.ended()
        await asyncio.sleep(PAUSE_S)
        if turn >= 2 and timeline.arrivals and timeline.ended and timeline.cancelled:
            ttft.append(timeline.arrivals[0] - timeline.sent)
            done.append(timeline.ended - timeline.cancelled)
    await line.close()
    return {"ttft": ttft, "cancel_done": done}


async def load(make: MakeLine, pid: int, *, seed: str, clients: int, seconds: float) -> Numbers:
    """`clients` that talk without pause, observed for a window of `seconds`."""
    before = anonymous_bytes(pid)
    lines = [make() for _ in range(clients)]
    for line in lines:
        await line.open()
    turns: list[Timeline] = []
    over = False

    async def talk(line: Line, name: str) -> None:
        asked = prompts(name)
        while not over:
            await line.open()
            await line.say(next(asked))
            turns.append(line.timeline)
            await line.ended()

    talking = [asyncio.create_task(talk(line, f"{seed} {number}")) for number, line in enumerate(lines)]
    await asyncio.sleep(RAMP_S)
    began, spent, ours = perf_counter(), cpu_seconds(pid), process_time()
    await asyncio.sleep(seconds)
    ended, spent, ours = perf_counter(), cpu_seconds(pid) - spent, process_time() - ours
    memory = anonymous_bytes(pid) - before
    over = True
    for line in lines:
        if line.timeline.ended is None:
            line.cancel()
    await _all(talking)
    for line in lines:
        await line.close()
    await asyncio.sleep(PAUSE_S)
    inside = [[at for at in turn.arrivals if began <= at < ended] for turn in turns]
    whole = [turn for turn in turns if turn.tokens and turn.arrivals]
    frames = sum(map(len, inside))
    whole_frames = sum(len(turn.arrivals) for turn in whole)  # empty if the machine was too slow for one whole turn
    per_frame = sum(turn.tokens or 0 for turn in whole) / whole_frames if whole_frames else 1.0
    return {
        "ttft": [turn.arrivals[0] - turn.sent for turn in turns if turn.arrivals and began <= turn.sent < ended],
        "gap": [gap for times in inside for gap in _gaps(times)],
        "frames": frames,
        "tokens_per_frame": per_frame,
        "seconds": ended - began,
        "tokens_per_second": frames * per_frame / (ended - began),
        "cpu_us_per_frame": spent / max(1, frames) * 1e6,
        "cpu_share": spent / (ended - began),
        "client_cpu_share": ours / (ended - began),
        "memory_per_client": memory / clients,
        "prompt_tokens": max((turn.prompt_tokens for turn in whole), default=0),
        "turns": len(whole),
    }


async def slot(make: MakeLine, pid: int, *, seed: str, slots: int, repeat: int) -> Numbers:
    """All engine slots are taken and one client waits.

    Measures seconds from a cancel to the first token of the waiting client, in engine steps, and the tokens that were
    still computed for the cancelled request.
    """
    lines = [make() for _ in range(slots)]
    waiting = make()
    asked = prompts(seed)
    for line in (*lines, waiting):
        await line.open()
    freed: list[float] = []
    steps: list[float] = []
    after: list[int] = []
    done: list[float] = []
    for _ in range(repeat):
        for line in lines:
            await line.open()
            await line.say(next(asked))
        for line in lines:
            await line.arrived(2)
        leaving, witness = sorted(lines, key=lambda line: len(line.timeline.arrivals))[:2]
        await waiting.say(next(asked))
        await asyncio.sleep(2 * PAUSE_S)
        others = [line for line in lines if line is not leaving]
        turned_away = not waiting.timeline.arrivals and all(line.timeline.ended is None for line in lines)
        if turned_away:
            leaving.cancel()
        cancelled = leaving.timeline.cancelled
        await waiting.arrived(1)
        came = waiting.timeline.arrivals
        left = await leaving.ended()
        alive = all(line.timeline.ended is None for line in others)
        if turned_away and alive and came and cancelled and left.ended:
            ours = witness.timeline.arrivals
            step = median(_gaps(ours)[-12:])
            freed.append(came[0] - cancelled)
            steps.append((came[0] - cancelled) / step)
            done.append(left.ended - cancelled)
            after.append(max(0, sum(cancelled < at <= came[0] for at in ours) - 1))
        for line in (*lines, waiting):
            if line.timeline.ended is None:
                line.cancel()
            await line.ended()
        await waiting.open()
    for line in (*lines, waiting):
        await line.close()
    await asyncio.sleep(PAUSE_S)
    return {"freed": freed, "freed_steps": steps, "tokens_after": after, "busy_cancel_done": done}


async def prompt(make: MakeLine, pid: int, *, seed: str, turns: int) -> Numbers:
    """Whole turns, one after the other: prompt length and reply length in tokens."""
    line = make()
    asked = prompts(seed)
    lengths: list[int] = []
    replies: list[int] = []
    for _ in range(turns):
        await line.open()
        await line.say(next(asked))
        timeline = await line.ended()
        lengths.append(timeline.prompt_tokens)
        replies.append(timeline.tokens or 0)
    await line.close()
    return {"prompt_tokens": lengths, "reply_tokens": replies}


async def late_frames(make: MakeLine, pid: int, *, seed: str, turns: int) -> Numbers:
    """Count frames after the end of a turn, over turns that are cancelled at random moments."""
    line = make()
    asked = prompts(seed)
    late = 0
    for turn in range(turns):
        await line.open()
        await line.say(next(asked))
        await asyncio.sleep((turn % 10) * 0.004)
        if line.timeline.ended is None:
            line.cancel()
        timeline = await line.ended()
        await asyncio.sleep(PAUSE_S)
        late += timeline.late
    await line.close()
    return {"late_frames": late, "turns": turns}


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
    gaps = [gap for times in [await task for task in talking] for gap in _gaps(times)]
    return {"ttft": ttft, "others_ttft": theirs, "stream_gap": gaps}


async def conversation(make: MakeLine, pid: int, *, seed: str, turns: int, words: int) -> Numbers:
    """One session of many turns: per turn the tokens of its prompt, the cached ones, and the tokens of the reply."""
    line, who = make(), persona()
    asked = prompts(seed, words)
    await line.open()
    rows: list[dict[str, float]] = []
    for _ in range(turns):
        prompt = next(asked)
        await line.say(Prompt(who, prompt.utterance), session="long")
        timeline = await line.ended()
        rows.append(
            {
                "prompt": timeline.prompt_tokens,
                "cached": timeline.cached_tokens,
                "reply": timeline.tokens or 0,
                "ttft": timeline.arrivals[0] - timeline.sent if timeline.arrivals else float("nan"),
            }
        )
        await asyncio.sleep(PAUSE_S * 4)  # think time of the user
    await line.close()
    return {"rows": rows}


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
        "quiet_gap": [gap for each in times for gap in _gaps([at for at in each if began <= at < storming])],
        "storm_gap": [gap for each in times for gap in _gaps([at for at in each if storming <= at < calm])],
    }


SCENARIOS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (weight, prompt, first_token, load, slot, late_frames, crowd, conversation, idle, storm)
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
    line, asked, gaps = make(), prompts(seed), list[float]()
    until = perf_counter() + seconds
    while perf_counter() < until:
        await line.open()
        await line.say(next(asked))
        gaps += _gaps((await line.ended()).arrivals)
    await line.close()
    return gaps


async def _all(tasks: list[asyncio.Task[Any]]) -> None:
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


def _gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]

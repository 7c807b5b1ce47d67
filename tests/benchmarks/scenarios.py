"""The scenarios. Each returns plain numbers in seconds, bytes and counts.

Every function runs in the process of the clients (for the raw engine: in its own process). A scenario only knows how
to open a line to the system and which process serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time
from typing import Any

from tests.benchmarks.crowds import PAUSE_S, RAMP_S, MakeLine, Numbers, crowd, gaps, idle, storm, weight
from tests.benchmarks.lines import Line, Timeline
from tests.benchmarks.processes import anonymous_bytes, cpu_seconds
from tests.benchmarks.prompts import Prompt, persona, prompts


async def first_token(make: MakeLine, pid: int, *, seed: str, turns: int) -> Numbers:
    """One client on an idle server with an open connection and a warm persona: seconds to the first content, and from
    a cancel to the end."""
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
        await line.open()  # a cancelled HTTP turn has closed its connection; the next one is not part of a first token
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
        "gap": [gap for times in inside for gap in gaps(times)],
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
            step = median(gaps(ours)[-12:])
            freed.append(came[0] - cancelled)
            if step > 0:  # a busy reader takes several frames at once and sees no time between them
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


SCENARIOS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (weight, prompt, first_token, load, slot, late_frames, crowd, conversation, idle, storm)
}


async def _all(tasks: list[asyncio.Task[Any]]) -> None:
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result

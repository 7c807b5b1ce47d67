"""Usage in memory: turns add to sums per minute, key and persona, which one background task writes in batches."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from accounts.histogram import BUCKETS, bucket_of

log = logging.getLogger(__name__)

COUNTERS = (
    "turns",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "tool_prompt_tokens",
    "tool_completion_tokens",
    "cancels",
    "barge_ins",
    "tool_yes",
    "tool_no",
    "suppressed",
)


@dataclass(frozen=True, slots=True)
class TurnUsage:
    """What one turn used, told once when it has ended. ``ttft_ms`` is None when no text reached the client."""

    key_id: int | None
    key_prefix: str
    persona: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    tool_prompt_tokens: int = 0
    tool_completion_tokens: int = 0
    ttft_ms: float | None = None
    tool: Literal["yes", "no"] | None = None
    cancelled: bool = False
    barge_in: bool = False
    error_code: str | None = None
    suppressed: int = 0

    @property
    def total_tokens(self) -> int:
        """What the daily budget is charged: prompts (cached parts included) and output of both engines."""
        return self.prompt_tokens + self.completion_tokens + self.tool_prompt_tokens + self.tool_completion_tokens


class UsageKey(NamedTuple):
    """Which row: ``minute`` is the start of its bucket in Unix seconds."""

    minute: int
    key_prefix: str
    persona: str


@dataclass(slots=True)
class UsageSum:
    """Counts that can be added, named as the columns of ``accounts.models.Usage``."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    ttft: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    @property
    def total_tokens(self) -> int:
        """Tokens as the daily budget counts them."""
        names = ("prompt_tokens", "completion_tokens", "tool_prompt_tokens", "tool_completion_tokens")
        return sum(self.counts[name] for name in names)

    def add_turn(self, turn: TurnUsage) -> None:
        """One more turn."""
        counts = self.counts
        counts["turns"] += 1
        counts["prompt_tokens"] += turn.prompt_tokens
        counts["cached_tokens"] += min(turn.cached_tokens, turn.prompt_tokens)
        counts["completion_tokens"] += turn.completion_tokens
        counts["tool_prompt_tokens"] += turn.tool_prompt_tokens
        counts["tool_completion_tokens"] += turn.tool_completion_tokens
        counts["cancels"] += turn.cancelled
        counts["barge_ins"] += turn.barge_in
        counts["suppressed"] += turn.suppressed
        if turn.tool is not None:
            counts[f"tool_{turn.tool}"] += 1
        if turn.error_code is not None:
            self.errors[turn.error_code] += 1
        if turn.ttft_ms is not None:
            self.ttft[bucket_of(turn.ttft_ms)] += 1

    def add(self, other: UsageSum) -> None:
        """Everything of ``other`` as well."""
        self.counts.update(other.counts)
        self.errors.update(other.errors)
        self.ttft = [one + more for one, more in zip(self.ttft, other.ttft, strict=True)]


Write = Callable[[Mapping[UsageKey, UsageSum], Mapping[int, float]], None]
"""Writes sums, and when keys (by id) were last used, in one transaction: ``accounts.services.write_usage``."""


class UsageLedger:
    """Collects on the serving loop; writes in a thread of its own, at most once per ``interval_s``.

    A failed write is kept and tried again; beyond ``max_rows`` sums the oldest are given up, with a line in the log.
    """

    def __init__(
        self, write: Write, *, clock: Callable[[], float] = time.time, interval_s: float = 1.0, max_rows: int = 20_000
    ) -> None:
        self._write = write
        self._clock = clock
        self._interval_s = interval_s
        self._max_rows = max_rows
        self._sums: dict[UsageKey, UsageSum] = {}
        self._last_used: dict[int, float] = {}
        self._writing = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="usage")
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Begins to write in the background of the running loop; a second call does nothing."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="usage ledger")

    def record(self, turn: TurnUsage) -> None:
        """Counts a turn. Only memory is touched."""
        now = self._clock()
        self._sum(now, turn.key_prefix, turn.persona).add_turn(turn)
        if turn.key_id is not None:
            self._last_used[turn.key_id] = now

    def record_warm_up(self, used: TurnUsage) -> None:
        """Count the prompt tokens of a warm-up. A warm-up is no turn."""
        now = self._clock()
        self._sum(now, used.key_prefix, used.persona).counts["prompt_tokens"] += used.prompt_tokens
        if used.key_id is not None:
            self._last_used[used.key_id] = now

    def record_error(self, key_prefix: str, code: str, persona: str = "") -> None:
        """Counts an error that belongs to no turn."""
        self._sum(self._clock(), key_prefix, persona).errors[code] += 1

    def touch(self, key_id: int | None) -> None:
        """Notes that a key was used now; None is ``TEXT_API_KEY`` and has no row."""
        if key_id is not None:
            self._last_used[key_id] = self._clock()

    async def flush(self) -> bool:
        """Writes what there is now, in one transaction. False: it failed and is kept."""
        async with self._writing:
            if not self._sums and not self._last_used:
                return True
            sums, last_used = self._sums, self._last_used
            self._sums, self._last_used = {}, {}
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._write, sums, last_used)
            except Exception as error:
                self._keep(sums, last_used, error)
                return False
            if self._failing:
                log.warning("usage is written again")
            self._failing = False
            return True

    async def close(self) -> None:
        """Stops the background task and writes what is left."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with self._writing:
            pass  # what the task had begun
        await self.flush()
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await asyncio.shield(asyncio.ensure_future(self.flush()))

    def _sum(self, now: float, key_prefix: str, persona: str) -> UsageSum:
        return self._sums.setdefault(UsageKey(int(now // 60) * 60, key_prefix, persona), UsageSum())

    def _keep(self, sums: Mapping[UsageKey, UsageSum], last_used: Mapping[int, float], error: Exception) -> None:
        if not self._failing:
            log.error("usage could not be written and is kept: %s: %s", type(error).__name__, error)
        self._failing = True
        for key, older in sums.items():
            self._sums.setdefault(key, UsageSum()).add(older)
        self._last_used = {**last_used, **self._last_used}
        surplus = sorted(self._sums)[: max(0, len(self._sums) - self._max_rows)]
        for key in surplus:
            del self._sums[key]
        if surplus:
            log.error("usage of %d rows was given up: the database did not answer for too long", len(surplus))

"""Usage in memory: sums per minute, key and persona, which one background task writes in numbered batches."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from accounts.breaker import DependencyAway
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
    """Usage of one turn, recorded once when it has ended. ``ttft_ms`` is None when no text reached the client."""

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
        """Tokens that the daily budget counts: prompts (cached parts included) and output of both engines."""
        return self.prompt_tokens + self.completion_tokens + self.tool_prompt_tokens + self.tool_completion_tokens


class UsageKey(NamedTuple):
    """Identity of a row. ``minute`` is the start of its bucket in Unix seconds."""

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
        """Add one turn."""
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
        """Add every count of ``other``."""
        self.counts.update(other.counts)
        self.errors.update(other.errors)
        self.ttft = [one + more for one, more in zip(self.ttft, other.ttft, strict=True)]


@dataclass(frozen=True, slots=True)
class UsageBatch:
    """Usage that is written in one transaction. Writer and number identify it: written twice, it counts once.

    Attributes:
        writer: Id of the process that counted it (32 hex digits).
        number: Grows by one with each batch of a writer, from 1.
        sums: What was used.
        last_used: Row id of a key → when it was last used, in Unix seconds.
    """

    writer: str
    number: int
    sums: Mapping[UsageKey, UsageSum]
    last_used: Mapping[int, float]

    @property
    def turns(self) -> int:
        """Turns in this batch."""
        return sum(each.counts["turns"] for each in self.sums.values())

    @property
    def tokens(self) -> int:
        """Tokens in this batch, as the daily budget counts them."""
        return sum(each.total_tokens for each in self.sums.values())


Write = Callable[[UsageBatch], Awaitable[None]]
"""Writes a batch in one transaction, once (``accounts.usage_services.write_batch`` in a thread). Raises what it likes:
the batch is kept and tried again."""


class UsageLedger:
    """Collects on the serving loop and writes at most once per ``interval_s``.

    Args:
        write: Writes one batch.
        clock: Unix seconds.
        interval_s: Seconds between two writes.
        max_rows: Sums that are kept while nothing can be written; beyond that the oldest are dropped, with a line in
            the log.
    """

    def __init__(
        self, write: Write, *, clock: Callable[[], float] = time.time, interval_s: float = 1.0, max_rows: int = 20_000
    ) -> None:
        self._write = write
        self._clock = clock
        self._interval_s = interval_s
        self._max_rows = max_rows
        self._writer = uuid.uuid4().hex
        self._number = 0
        self._sums: dict[UsageKey, UsageSum] = {}
        self._last_used: dict[int, float] = {}
        self._unwritten: deque[UsageBatch] = deque()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._flushing: asyncio.Task[bool] | None = None
        self.failing = False
        """Whether the last write failed although the database answered: a full disk, for one."""

    def start(self) -> None:
        """Start to write in the background of the running loop. Idempotent."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="usage ledger")

    def record(self, turn: TurnUsage) -> None:
        """Count a turn. Only memory is touched."""
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
        """Count an error that belongs to no turn."""
        self._sum(self._clock(), key_prefix, persona).errors[code] += 1

    def take_up(self, batches: Iterable[UsageBatch]) -> None:
        """Write batches of an ended process as well, before any other."""
        self._unwritten.extendleft(reversed(list(batches)))

    async def flush(self) -> bool:
        """Write everything counted so far.

        Returns:
            False: a write failed; everything that is not written is kept.
        """
        async with self._writing:
            if not await self._write_waiting():
                return False
            self._batch()
            if not await self._write_waiting():
                return False
            if self.failing:
                log.warning("usage is written again")
            self.failing = False
            return True

    async def close(self, timeout_s: float = 2.0) -> list[UsageBatch]:
        """Stop the background task and write the rest.

        Args:
            timeout_s: How long writing may take.

        Returns:
            What could not be written; a batch whose write has no answer yet is part of it.
        """
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        last = asyncio.get_running_loop().create_task(self.flush(), name="last usage")
        await asyncio.wait({last}, timeout=timeout_s)
        self._batch()
        return list(self._unwritten)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            # A cancelled run leaves the write that has begun alone.
            self._flushing = asyncio.get_running_loop().create_task(self.flush(), name="usage write")
            await asyncio.shield(self._flushing)

    def _sum(self, now: float, key_prefix: str, persona: str) -> UsageSum:
        return self._sums.setdefault(UsageKey(int(now // 60) * 60, key_prefix, persona), UsageSum())

    def _batch(self) -> None:
        """Number what has been counted since the last batch."""
        if self._sums or self._last_used:
            self._number += 1
            self._unwritten.append(UsageBatch(self._writer, self._number, self._sums, self._last_used))
            self._sums, self._last_used = {}, {}

    async def _write_waiting(self) -> bool:
        while self._unwritten:
            try:
                await self._write(self._unwritten[0])
            except Exception as error:
                self._failed(error)
                return False
            self._unwritten.popleft()
        return True

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, DependencyAway):  # that has been logged for everything that needs the database
            if not self.failing:
                log.error("usage cannot be written and is kept: %s: %s", type(error).__name__, error)
            self.failing = True
        rows = len(self._sums) + sum(len(batch.sums) for batch in self._unwritten)
        surplus = sorted(self._sums)[: max(0, rows - self._max_rows)]
        for key in surplus:
            del self._sums[key]
        if surplus:
            log.error("usage of %d rows is dropped: nothing could be written for too long", len(surplus))

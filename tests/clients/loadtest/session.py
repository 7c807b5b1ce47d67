"""One session of a load test: connect, run turns, close."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from yapclient import Connection, ConnectionRefused, NoServer, Token, Turn, YapError, open_connection

from loadtest.plan import Plan
from loadtest.record import TurnRecord

# Range of the time from the first token to an interruption, seconds.
INTERRUPT_AFTER_S = (0.1, 0.8)


class Session:
    """Session `number` of a plan.

    `meant` is its planned start and `origin` the start of the test; both are seconds of `time.perf_counter`.
    """

    def __init__(
        self, plan: Plan, number: int, origin: float, meant: float, on_turn: Callable[[TurnRecord], None]
    ) -> None:
        self.plan = plan
        self.number = number
        self.origin = origin
        self.meant = meant
        self.on_turn = on_turn
        self.chance = plan.chance(number)
        self.connect_ms: float | None = None

    async def run(self) -> None:
        """Run the session; a failure becomes a record, not an exception."""
        start = time.perf_counter()
        try:
            line = await open_connection(self.plan.server, timeout=self.plan.timeout)
        except YapError as error:
            refused = isinstance(error, (ConnectionRefused, NoServer))
            self.on_turn(self._record(0, "refused" if refused else "error", error.code))
            return
        self.connect_ms = round((time.perf_counter() - start) * 1000, 1)
        if self.plan.rate is None:
            self.meant = time.perf_counter()  # closed loop: times count from the open connection
        number = 0
        try:
            for number in range(self.plan.turns):
                if number:
                    await self._think()
                if not await self._exchange(line, number):
                    break
        except YapError as error:
            self.on_turn(self._record(number, "error", error.code))
        finally:
            await line.close()

    async def _think(self) -> None:
        self.meant = time.perf_counter()
        if self.plan.think_time:
            self.meant += self.chance.expovariate(1 / self.plan.think_time)
            await asyncio.sleep(self.meant - time.perf_counter())

    async def _exchange(self, line: Connection, number: int) -> bool:
        """Run one turn with its interruption or repetition; returns False if the session is over."""
        interrupt = self.chance.random() < self.plan.barge_in_share
        turn = self._turn(line, number)
        if interrupt and await self._until_interruption(turn):
            successor = await line.barge_in(self.plan.message(self.number, number + 1), sampling=self.plan.sampling)
            began = successor.timing.started
            well = await self._finish(turn, number, interrupted_at=began)
            self.meant = began
            return await self._finish(successor, number) and well
        well = await self._finish(turn, number)
        if well and self.plan.twice:
            self.meant = time.perf_counter()
            well = await self._finish(self._turn(line, number), number, repeat=True)
        return well

    def _turn(self, line: Connection, number: int) -> Turn:
        return line.turn(
            self.plan.message(self.number, number),
            persona=None if number else self.plan.persona,
            history="" if self.plan.twice else None,
            sampling=self.plan.sampling,
        )

    async def _until_interruption(self, turn: Turn) -> bool:
        """Read events until the moment of the interruption; returns False if the turn ended before."""
        after = self.chance.uniform(*INTERRUPT_AFTER_S)
        try:
            async for event in turn:
                if isinstance(event, Token) and turn.timing.first_token is not None:
                    rest = turn.timing.first_token + after - time.perf_counter()
                    await asyncio.sleep(max(rest, 0))
                    return turn.running
        except YapError:
            pass  # _finish records the error
        return False

    async def _finish(
        self, turn: Turn, number: int, *, repeat: bool = False, interrupted_at: float | None = None
    ) -> bool:
        code = None
        try:
            await turn.finish()
            outcome = "interrupted" if turn.cancelled else "ok"
        except YapError as error:
            outcome, code = "error", error.code
        record = self._record(number, outcome, code)
        record.repeat = repeat
        record.take(turn, self.meant)
        if interrupted_at is not None and turn.timing.done is not None:
            record.interrupt_ms = turn.timing.ms(turn.timing.done, interrupted_at)
        self.on_turn(record)
        return outcome != "error"

    def _record(self, number: int, outcome: str, code: str | None) -> TurnRecord:
        at = round(self.meant - self.origin, 3)
        connect_ms, self.connect_ms = self.connect_ms, None  # recorded once, with the first turn
        return TurnRecord(self.number, number, at, outcome, code, connect_ms=connect_ms)

"""The one running turn of a session: start, supersede, cancel, account.

Only this class creates and cancels the task of a turn, and only this class sends the ``done`` of a cancelled turn.

    client          session              turn runner                     turn task
    start 1 ------> start ------------->  start(turn 1) ---------------> tokens ...
    start 2 ------> stop(BARGE_IN) ---->  cancel ----------------------> engine requests aborted
                                          on_result(turn 1) (history, usage)
            <------ done, cancelled, turn 1
                    start ------------->  start(turn 2) ---------------> ack, tokens ...
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from inference.metrics import Metrics
from inference.turn import Turn
from inference.turn_frames import FramesOfTurn
from inference.turn_line import FrameSender
from inference.turn_plan import TurnPlan, TurnPolicy
from inference.turn_result import StopReason, TurnResult

logger = logging.getLogger("yap.session")

CANCEL_GRACE_S = 2.0  # wait this long for a cancelled task; afterwards the turn is recorded and muted all the same


@dataclass(slots=True)
class _Run:
    """One turn with its task. ``stopping`` is shared by all callers that stop the same turn."""

    turn: Turn
    task: asyncio.Task[None]
    stopping: asyncio.Task[bool] | None = None
    result: TurnResult | None = None


class TurnRunner:
    """Runs at most one turn at a time. All calls belong to the serving loop.

    Args:
        policy: the server's settings for turns.
        metrics: records the time of a cancellation.
        send: sends one frame.
        on_result: called once per turn: before the ``done`` frame is sent, and before another turn can start.
    """

    def __init__(
        self, policy: TurnPolicy, metrics: Metrics, send: FrameSender, on_result: Callable[[TurnResult], None]
    ) -> None:
        self._policy = policy
        self._metrics = metrics
        self._send = send
        self._on_result = on_result
        self._run: _Run | None = None
        self._closed = False

    @property
    def running(self) -> bool:
        """Whether a turn runs now."""
        return self._run is not None and not self._run.task.done()

    @property
    def last(self) -> Turn | None:
        """The running turn, else the one that ended last; None before the first."""
        return self._run.turn if self._run is not None else None

    @property
    def closed(self) -> bool:
        """Whether no more turns start."""
        return self._closed

    def close(self) -> None:
        """Start no more turns."""
        self._closed = True

    def reopen(self) -> None:
        """Start turns again: another connection goes on."""
        self._closed = False

    def start(self, plan: TurnPlan, frames: FramesOfTurn, ack: Callable[[], str] | None = None) -> Turn | None:
        """Start a turn. The caller has stopped the one before.

        Args:
            plan: the turn.
            frames: encodes its frames.
            ack: makes the turn's first frame; None where the message has no ack.

        Returns:
            The turn, or None where the runner was closed in the meantime.
        """
        if self._closed:
            return None
        turn = Turn(plan, self._policy, frames, self._send, ack)
        run = self._run = _Run(turn, asyncio.create_task(self._drive(turn)))
        # A task that is cancelled before its first step never enters _drive(), so the callback accounts as well.
        run.task.add_done_callback(lambda _: self._account(run))
        return turn

    async def stop(self, reason: StopReason) -> bool:
        """Cancel the running turn and send its ``done``. Several callers at once share one stop and one ``done``.

        Returns:
            True where a turn was cancelled; False where none ran or the turn ended by itself.
        """
        run = self._run
        if run is None:
            return False
        if run.task.done():
            self._account(run)  # the task's callback may not have run yet
            return False
        if run.stopping is None:
            run.stopping = asyncio.create_task(self._stop(run, reason))
        return await asyncio.shield(run.stopping)

    async def abort(self) -> None:
        """Cancel the running turn without sending a frame: the connection is gone. Waits at most the grace time."""
        run = self._run
        self._closed = True
        if run is None:
            return
        if run.task.done():
            self._account(run)
            return
        run.turn.mute()
        run.task.cancel()
        await asyncio.wait({run.task}, timeout=CANCEL_GRACE_S)
        self._account(run)

    def redirect(self, send: FrameSender) -> None:
        """Send all further frames to another connection."""
        self._send = send
        if self._run is not None:
            self._run.turn.line.redirect(send)

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the running turn has ended and its last frame was sent, at most ``timeout_s`` seconds for the
        turn; None waits without a limit."""
        run = self._run
        if run is None:
            return
        if not run.task.done():
            await asyncio.wait({run.task}, timeout=timeout_s)
        if run.stopping is not None:  # sends the last frame after the task's end
            await asyncio.wait({run.stopping})

    async def _drive(self, turn: Turn) -> None:
        run = self._run
        assert run is not None
        try:
            await turn.run()
        finally:
            result = self._account(run)
        await turn.send_done(result)

    async def _stop(self, run: _Run, reason: StopReason) -> bool:
        started = time.perf_counter()
        turn = run.turn
        turn.stop_reason = reason
        run.task.cancel()
        await asyncio.wait({run.task}, timeout=CANCEL_GRACE_S)
        self._account(run)
        if not run.task.done():
            logger.error("turn %d did not end within %.0f s of its cancellation", turn.plan.turn, CANCEL_GRACE_S)
        stopped = not turn.done_sent
        if stopped:
            await turn.send_cancelled()
        self._metrics.cancel_seconds.observe(time.perf_counter() - started)
        return stopped

    def _account(self, run: _Run) -> TurnResult:
        """Hand the result on, once per turn. Returns the result."""
        if run.result is None:
            run.result = run.turn.result()
            if run.task.done() and not run.task.cancelled() and (error := run.task.exception()) is not None:
                logger.error("turn %d failed outside its own handling", run.turn.plan.turn, exc_info=error)
            self._on_result(run.result)
        return run.result

"""One turn: the tool decision, the reply beside or after it, and the frames. Cancelling the turn's task ends it.

A turn knows no socket and no database: it gets engines, token ids and a function that sends a frame.

    concurrent turn          tool engine       chat engine            client
    ---------------          -----------       -----------            ------
    decision of no           [ ... ] no        text, held             toolcall no, held text, text ..., final
    decision of yes          [{ yes ... }]     aborted, then prefixed toolcall yes, text ..., final
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from inference.failures import client_error
from inference.outbox import Outbox
from inference.prompting.heard import Heard
from inference.protocol.errors import ErrorCode, ProtocolError
from inference.reply import Reply
from inference.speech.output_style import GuardedStyle, RawStyle
from inference.task_ends import cancel_and_wait
from inference.tool_classification import classify
from inference.tool_decision import Decision, DecisionProgress, decide
from inference.turn_frames import FramesOfTurn
from inference.turn_line import FrameSender, TurnLine
from inference.turn_plan import TurnPlan, TurnPolicy
from inference.turn_result import EndReason, GenerationUsage, StopReason, TurnResult

logger = logging.getLogger(__name__)


class Turn:
    """One turn. Call :meth:`run` once, in its own task; afterwards :meth:`result` holds what happened.

    Args:
        plan: the requests and the numbers of this turn.
        policy: the server's settings.
        frames: encodes the frames in the client's protocol. An empty frame is not sent.
        send: sends one frame.
        ack: makes the turn's first frame; None where the message has no ack.
    """

    def __init__(
        self,
        plan: TurnPlan,
        policy: TurnPolicy,
        frames: FramesOfTurn,
        send: FrameSender,
        ack: Callable[[], str] | None = None,
    ) -> None:
        self.plan = plan
        self.line = TurnLine(frames, send, ack)
        self.done_sent = False
        self.stop_reason: StopReason | None = None
        self._policy = policy
        self._request = plan.chat.request if plan.chat else None
        self._reply: Reply | None = None
        self._replies_begun = 0
        self._discarded_tokens = 0
        self._tool = DecisionProgress()
        self._tool_wanted: bool | None = None
        self._ended_by = EndReason.CANCELLED
        self._error_code: str | None = None
        self._tool_ms: float | None = None
        self._started = time.perf_counter()
        self._ended_at: float | None = None
        self._outbox = Outbox(self.line.token, policy.flush_delay_s)
        self._style = plan.chat.style() if plan.chat else RawStyle()

    # -- result ------------------------------------------------------------------------------------

    def result(self) -> TurnResult:
        """Return what happened up to now. A turn that has not ended counts as cancelled."""
        reply, delivered, first = self._reply, self._outbox.sent(), self.line.first_text_at
        suppressed = self._style.suppressed if isinstance(self._style, GuardedStyle) else 0
        return TurnResult(
            turn=self.plan.turn,
            persona_slug=self.plan.persona_slug,
            utterance=self._request.utterance if self._request else self.plan.utterance,
            delivered=delivered,
            reply_ids=self._delivered_ids(delivered),
            ended_by=self._ended_by,
            stop_reason=(self.stop_reason or StopReason.DISCONNECT) if self._cancelled else None,
            error_code=self._error_code,
            tool=self._tool_wanted,
            usage=GenerationUsage(
                prompt_tokens=reply.prompt_tokens if reply else 0,
                cached_tokens=reply.cached_tokens if reply else 0,
                completion_tokens=reply.completion_tokens if reply else 0,
                reasoning_tokens=reply.reasoning_tokens if reply else 0,
                tool_prompt_tokens=self._tool.prompt_tokens,
                tool_completion_tokens=self._tool.completion_tokens,
                discarded_tokens=self._discarded_tokens,
                ttft_ms=None if first is None else _ms(first - self._started),
                tool_ms=self._tool_ms,
                total_ms=_ms((self._ended_at or time.perf_counter()) - self._started),
                suppressed=suppressed + (reply.suppressed if reply else 0),
            ),
            held_deltas=reply.held_deltas if reply else 0,
        )

    @property
    def _cancelled(self) -> bool:
        return self._ended_by is EndReason.CANCELLED

    def _delivered_ids(self, text: str) -> Sequence[int]:
        """The ids of the delivered text: generated ids as far as they spell the text, the rest encoded."""
        chat, reply = self.plan.chat, self._reply
        if chat is None or not text:
            return []
        if reply is None:
            return chat.encode(text)
        if self._ended_by in (EndReason.STOP, EndReason.LENGTH):  # styles change text; history keeps the model's
            return reply.released_ids(chat.encode)
        return reply.ids_of(text, chat.encode) if reply.released().startswith(text) else chat.encode(text)

    def check_received(self, received: Heard) -> None:
        """Raise ``ProtocolError`` where a client claims more text than was sent."""
        if received.length > received.unit.length_of(self._outbox.sent()[: self.line.characters]):
            raise ProtocolError(ErrorCode.INVALID_MESSAGE, "received is more than was sent")

    def missing(self, received: Heard) -> Sequence[str]:
        """Return the frames that a client lacks which has this part of the text."""
        text = self._outbox.sent()
        return self.line.missing(text, received.code_points_of(text))

    # -- running -----------------------------------------------------------------------------------

    def mute(self) -> None:
        """Send no more frames, also where the turn's task still runs. The caller sends the last frame itself."""
        self.line.mute()
        self._outbox.close()

    async def run(self) -> None:
        """Run from the tool decision to ``final`` or ``error``. Raises only a cancellation."""
        error: ProtocolError | None = None
        ended_by = EndReason.ERROR
        try:
            await self._generate()
            ended_by = EndReason(self._reply.finish_reason or "stop") if self._reply else EndReason.STOP
        except TimeoutError:
            ended_by = EndReason.TIMEOUT
            error = ProtocolError(ErrorCode.GENERATION_TIMEOUT, "the reply took too long")
        except Exception as failure:
            error = client_error(logger, f"turn {self.plan.turn}:", failure)
        self._ended_by = ended_by
        self._ended_at = time.perf_counter()
        await self.line.acknowledge()
        if error is None:
            await self.line.final(self._outbox.sent())
        else:
            self._error_code = error.code
            await self._outbox.flush()  # text that waits was generated in time
            await self.line.error(error.code, error.message, error.details)

    async def send_cancelled(self) -> None:
        """Send the last frame of a turn that was cancelled. Nothing is sent afterwards, also where the task goes on."""
        self.done_sent = True
        await self.line.acknowledge()
        self._outbox.close()
        await self.line.done(cancelled=True)

    async def send_done(self, result: TurnResult) -> None:
        """Send the last frame of a turn that ended by itself, once the turn is recorded and accounted."""
        if not self.line.muted:
            self.done_sent = True
            await self.line.done(result.usage.as_frame(result.ended_by))

    async def _generate(self) -> None:
        tool, chat = self.plan.tool, self.plan.chat
        asks = tool is not None and (tool.classifier or (tool.engine and tool.request)) is not None
        if asks and chat is not None and self._policy.concurrent:
            async with asyncio.timeout(self._policy.reply_timeout_s):
                await self._decide_beside_reply()
            return
        if asks:
            await self._announce(await self._decide())
        elif tool is not None:
            await self._announce(Decision())
        if chat is not None and not self._answered_by_calls:
            async with asyncio.timeout(self._policy.reply_timeout_s):
                await self._stream(self._begin_reply())

    @property
    def _replies_after_yes(self) -> bool:
        return self.plan.chat is not None and self.plan.chat.request_after_yes is not None

    @property
    def _answered_by_calls(self) -> bool:
        """Whether the tool calls are the whole answer."""
        return bool(self._tool_wanted) and not self._replies_after_yes

    async def _decide(self) -> Decision:
        tool = self.plan.tool
        assert tool is not None
        if tool.classifier is not None:
            return await (await classify(tool.classifier, self._policy.tool, self._tool))
        assert tool.engine is not None and tool.request is not None  # noqa: PT018 - one line for the type checker
        return await decide(tool.engine, tool.request, self._policy.tool, self._tool)

    async def _reply_unless_called(self, deciding: asyncio.Future[Decision]) -> None:
        await self._announce(await deciding)
        if not self._answered_by_calls:
            await self._stream(self._begin_reply())

    # -- decision and reply side by side -----------------------------------------------------------

    async def _decide_beside_reply(self) -> None:
        """Decide and reply at once. The reply is held until the decision is no; after a yes another reply begins."""
        pieces, tool = self._begin_reply(), self.plan.tool
        classifier = tool.classifier if tool is not None else None
        deciding: asyncio.Future[Decision] | None = None
        if classifier is None:
            deciding = asyncio.create_task(self._decide())
        first = asyncio.create_task(_next(pieces))
        try:
            if classifier is not None:
                await asyncio.sleep(0)  # the classifier computes on this loop: first the engine gets its request
                deciding = await classify(classifier, self._policy.tool, self._tool)
            assert deciding is not None
            if not await self._hold_reply(deciding, pieces, first):
                return
            self._discard_reply()
            if self._replies_after_yes:
                await self._reply_after_yes(deciding)
            else:
                await self._reply_unless_called(deciding)
        finally:
            if deciding is not None:
                await cancel_and_wait(deciding)
            await cancel_and_wait(first)
            await pieces.aclose()

    async def _hold_reply(
        self, deciding: asyncio.Future[Decision], pieces: AsyncGenerator[str, None], first: asyncio.Task[str | None]
    ) -> bool:
        """Hold the reply until the decision is known. Returns True after a yes; after a no the reply was sent.

        Args:
            deciding: the decision.
            pieces: the reply.
            first: waits for its first piece.
        """
        held: list[str] = []
        held_chars, most = 0, self._policy.prebuffer_max_chars
        said_yes = None if deciding.done() else asyncio.create_task(self._tool.said_yes.wait())
        waiting: asyncio.Task[str | None] | None = first
        reply_ended = False
        try:
            while said_yes and not (deciding.done() or said_yes.done()) and held_chars <= most:
                awaited: set[asyncio.Future[Any]] = {deciding, said_yes}
                if not reply_ended:
                    waiting = waiting or asyncio.create_task(_next(pieces))
                    awaited.add(waiting)
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if waiting is not None and waiting.done():
                    piece, waiting = waiting.result(), None
                    reply_ended = piece is None
                    held.append(piece or "")
                    held_chars += len(piece or "")
            if self._tool.said_yes.is_set() or (deciding.done() and deciding.result().calls):
                return True
            await cancel_and_wait(deciding)  # a full buffer decides; a decision that was made is not affected
            await self._announce(Decision() if deciding.cancelled() else deciding.result())
            await self._say("".join(held))
            if waiting is not None:
                piece, waiting = await waiting, None
                await self._say(piece or "")
            await self._stream(pieces)
            return False
        finally:
            if said_yes is not None:
                await cancel_and_wait(said_yes)
            if waiting is not None:
                await cancel_and_wait(waiting)
            await pieces.aclose()

    async def _reply_after_yes(self, deciding: asyncio.Future[Decision]) -> None:
        """Begin the reply to the prefixed text while the tool engine still writes its call."""
        chat = self.plan.chat
        assert chat is not None
        assert chat.request_after_yes is not None
        plain = chat.request
        self._request = chat.request_after_yes()
        pieces = self._begin_reply()
        first = asyncio.create_task(_next(pieces))
        try:
            decision = await deciding
            if decision.calls:
                await self._announce(decision)
                await self._say(await first or "")
                await self._stream(pieces)
                return
        finally:
            await cancel_and_wait(first)
            await pieces.aclose()
        # A call that is incomplete counts as no: the reply to the plain text begins again.
        self._request = plain
        await self._announce(Decision())
        await self._stream(self._begin_reply())

    # -- text --------------------------------------------------------------------------------------

    async def _announce(self, decision: Decision) -> None:
        self._tool_wanted = bool(decision.calls)
        self._tool_ms = _ms(time.perf_counter() - self._started)
        chat = self.plan.chat
        if decision.calls and chat and chat.request_after_yes and self._request is chat.request:
            self._request = chat.request_after_yes()
        await self.line.toolcall(list(decision.calls), decision.score)

    def _begin_reply(self) -> AsyncGenerator[str, None]:
        chat, request = self.plan.chat, self._request
        assert chat is not None
        assert request is not None
        self._discard_reply()
        self._reply = Reply(chat.engine, request.prompt_ids, chat.reply, attempt=self._replies_begun)
        self._replies_begun += 1
        return self._reply.stream()

    def _discard_reply(self) -> None:
        if (reply := self._reply) is not None:
            self._discarded_tokens += reply.prompt_tokens + reply.completion_tokens + reply.reasoning_tokens
        self._reply = None

    async def _stream(self, pieces: AsyncGenerator[str, None]) -> None:
        async with aclosing(pieces):
            async for piece in pieces:
                await self._outbox.put(self._style.feed(piece))
        await self._outbox.put(self._style.finish())
        await self._outbox.flush()

    async def _say(self, piece: str) -> None:
        await self._outbox.put(self._style.feed(piece))


async def _next(pieces: AsyncGenerator[str, None]) -> str | None:
    return await anext(pieces, None)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)

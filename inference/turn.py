"""One turn: the tool decision, the reply beside or after it, the frames, the usage. Cancelling its task ends it
anywhere.

A turn knows no socket and no database. It is given engines, ids and a way to send a frame; what it came to is read from
it afterwards by its session, also when it was cut short.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from inference.engines.base import Engine, EngineDead, GenerationRequest
from inference.engines.sampling import GREEDY
from inference.outbox import Outbox
from inference.prompting.tool_prompt import schema
from inference.protocol.errors import ErrorCode
from inference.protocol.frames import TurnFrames
from inference.reply import Reply, ReplyPlan
from inference.speech.output_style import GuardedStyle, OutputStyle, RawStyle, output_style
from inference.tool_call import decision, parse_calls

logger = logging.getLogger(__name__)

Send = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class TurnPolicy:
    """The server's settings that a turn needs. Seconds and characters; ``tool_hard_timeout`` None waits."""

    concurrent: bool = True
    gen_timeout: float = 60.0
    tool_timeout: float = 10.0
    tool_hard_timeout: float | None = 0.3
    tool_max_out: int = 64
    prebuffer_max_chars: int = 1000
    flush_seconds: float = 0.0
    check_screen_prefix: str = "CHECK SCREEN:"


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """What the tool engine is asked. ``prompt_ids`` None: the answer is no without asking."""

    engine: Engine | None
    prompt_ids: Sequence[int] | None
    tool_prompt: str


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """What the chat engine is asked. ``prompt`` makes the ids of the whole prompt for the user's text (None:
    silent)."""

    engine: Engine
    prompt: Callable[[str | None], list[int]]
    reply: ReplyPlan  # without its prompt
    output_style: str


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """One turn, decided before it starts. Without ``tool`` no toolcall is sent; without ``chat`` nothing is said."""

    turn: int
    request_id: str | None
    utterance: str | None
    tool: ToolPlan | None
    chat: ChatPlan | None


class Turn:
    """Runs once: ``await run()`` in a task of its own. Everything else is what it came to."""

    def __init__(self, plan: TurnPlan, policy: TurnPolicy, send: Send) -> None:
        self.plan = plan
        self.ack: Callable[[], str] | None = None  # makes the turn's first frame
        self.frames = TurnFrames(plan.turn, plan.request_id)
        self.user_text = plan.utterance
        self.reply: Reply | None = None
        self.tool: bool | None = None
        self.ended_by = "cancelled"  # stop | length | timeout | error | cancelled
        self.error_code: str | None = None
        self.ttft_ms: float | None = None
        self.tool_ms: float | None = None
        self.tool_prompt_tokens = 0
        self.tool_completion_tokens = 0
        self._policy = policy
        self.done_sent = False
        self._send = send
        self._started = time.perf_counter()
        self._ended: float | None = None
        self._outbox = Outbox(self._token, policy.flush_seconds)
        self._style = _style(plan.chat)
        self._requests_before = 0

    # -- what it came to ---------------------------------------------------------------------------

    def delivered(self) -> str:
        """The text that the client was sent."""
        return self._outbox.sent()

    def delivered_ids(self, encode: Callable[[str], list[int]]) -> list[int]:
        """The ids of what was delivered: those generated, as far as they spell it, the rest by ``encode``."""
        text, reply = self.delivered(), self.reply
        if reply is None:
            return encode(text)
        if self.ended_by in ("stop", "length"):  # a style may have changed the text; the engine keeps its own
            return reply.shown_ids(encode)
        return reply.ids_of(text, encode) if reply.shown().startswith(text) else encode(text)

    @property
    def total_ms(self) -> float:
        return _ms((self._ended or time.perf_counter()) - self._started)

    def usage(self) -> dict[str, Any]:
        """The ``usage`` of the ``done`` frame: every number is the engine's or a clock's."""
        reply = self.reply
        return {
            "prompt_tokens": reply.prompt_tokens if reply else 0,
            "cached_tokens": reply.cached_tokens if reply else 0,
            "completion_tokens": reply.completion_tokens if reply else 0,
            "tool_prompt_tokens": self.tool_prompt_tokens,
            "tool_completion_tokens": self.tool_completion_tokens,
            "ttft_ms": self.ttft_ms,
            "tool_ms": self.tool_ms,
            "total_ms": self.total_ms,
            "finish_reason": self.ended_by,
            "suppressed": (reply.suppressed if reply else 0) + self._suppressed_by_style(),
        }

    def _suppressed_by_style(self) -> int:
        return self._style.suppressed if isinstance(self._style, GuardedStyle) else 0

    # -- running -----------------------------------------------------------------------------------

    async def acknowledge(self) -> None:
        """Send the ack, if there is one and it has not been sent. Whoever sends another frame of this turn calls this
        first."""
        ack, self.ack = self.ack, None
        if ack is not None:
            await self._send(ack())

    async def run(self) -> None:
        """From the tool decision to ``done``. Only cancellation leaves it as an exception, with no ``done`` sent."""
        error: tuple[ErrorCode, str, dict[str, Any]] | None = None
        try:
            await self._converse()
            self.ended_by = self.reply.finish_reason or "stop" if self.reply else "stop"
        except TimeoutError:
            self.ended_by = "timeout"
            error = ErrorCode.GENERATION_TIMEOUT, "the reply took too long", {}
        except EngineDead as dead:
            logger.error("turn %d: engine unavailable: %s", self.plan.turn, dead)
            self.ended_by = "error"
            error = ErrorCode.ENGINE_UNAVAILABLE, "the engine is unavailable, try again in a moment", {}
        except Exception:
            reference = uuid.uuid4().hex[:12]
            logger.exception("turn %d: internal error, reference %s", self.plan.turn, reference)
            self.ended_by = "error"
            error = ErrorCode.INTERNAL_ERROR, "something went wrong on our side", {"reference": reference}
        self._ended = time.perf_counter()
        await self.acknowledge()
        if error is None:
            await self._send(self.frames.final(self.delivered()))
        else:
            self.error_code = str(error[0])
            await self._outbox.flush()  # what is still gathered was generated in time
            await self._send(self.frames.error(error[0], error[1], **error[2]))
        self.done_sent = True
        await self._send(self.frames.done(self.usage()))

    async def _converse(self) -> None:
        asks = self.plan.tool is not None and self.plan.tool.prompt_ids is not None
        if asks and self.plan.chat is not None and self._policy.concurrent:
            async with asyncio.timeout(self._policy.gen_timeout):
                await self._decide_beside_the_reply()
            return
        if asks:
            decided = _Decision(self)
            calls = await decided.calls() if await decided.told(self._policy.tool_hard_timeout) else []
            await self._announce(calls)
        elif self.plan.tool is not None:
            await self._announce([])
        if self.plan.chat is not None:
            async with asyncio.timeout(self._policy.gen_timeout):
                await self._answer(self._reply().stream())

    async def _decide_beside_the_reply(self) -> None:
        """Both engines at once: the reply is held until the decision is no; after a yes it begins anew."""
        decided = _Decision(self)
        try:
            if await self._hold_until_told(decided):
                await self._begin_anew(decided)
        finally:
            await decided.close()

    async def _begin_anew(self, decided: _Decision) -> None:
        """After a yes: the chat engine reads the prefixed text while the tool engine still writes its call."""
        self.user_text = self._prefixed()
        pieces = self._reply().stream()
        first = asyncio.create_task(_next(pieces))
        try:
            calls = await decided.calls()
            if calls:
                await self._announce(calls)
                await self._say(await first or "")
                await self._answer(pieces)
                return
        finally:
            await _ended(first)
            await pieces.aclose()
        # A call that did not come whole counts as no: the user's text stays as it was.
        self.user_text = self.plan.utterance
        await self._announce([])
        await self._answer(self._reply().stream())

    async def _hold_until_told(self, decided: _Decision) -> bool:
        """True after a yes, the reply aborted; after a no the reply has been given."""
        held: list[str] = []
        pieces = self._reply().stream()
        waiting: asyncio.Task[str | None] | None = None
        try:
            telling = asyncio.create_task(decided.told(self._policy.tool_hard_timeout))
            try:
                while not telling.done() and sum(map(len, held)) <= self._policy.prebuffer_max_chars:
                    waiting = waiting or asyncio.create_task(_next(pieces))
                    await asyncio.wait({telling, waiting}, return_when=asyncio.FIRST_COMPLETED)
                    if waiting.done():
                        piece, waiting = waiting.result(), None
                        if piece is None:  # a whole reply before the decision
                            await asyncio.wait({telling})
                        else:
                            held.append(piece)
                said_yes = telling.done() and telling.result()
            finally:
                await _ended(telling)
            if not said_yes:
                await decided.close()
                await self._announce([])
                await self._say("".join(held))
                if waiting is not None:
                    piece, waiting = await waiting, None
                    await self._say(piece or "")
                await self._answer(pieces)
            return said_yes
        finally:
            if waiting is not None:
                await _ended(waiting)
            await pieces.aclose()

    async def _announce(self, calls: list[dict[str, Any]]) -> None:
        self.tool = bool(calls)
        self.tool_ms = _ms(time.perf_counter() - self._started)
        if calls:
            self.user_text = self._prefixed()
        await self.acknowledge()
        await self._send(self.frames.toolcall(calls))

    def _prefixed(self) -> str | None:
        text = self.plan.utterance
        return None if text is None else f"{self._policy.check_screen_prefix} {text}".strip()

    def _reply(self) -> Reply:
        chat = self.plan.chat
        assert chat is not None
        plan = replace(
            chat.reply,
            prompt_ids=chat.prompt(self.user_text),
            request_id=f"{chat.reply.request_id}.{self._requests_before}",
        )
        self._requests_before += 1
        self.reply = Reply(chat.engine, plan)
        return self.reply

    async def _answer(self, pieces: AsyncGenerator[str, None]) -> None:
        async with aclosing(pieces):
            async for piece in pieces:
                await self._say(piece)
        await self._outbox.put(self._style.finish())
        await self._outbox.flush()

    async def _say(self, piece: str) -> None:
        await self._outbox.put(self._style.feed(piece))

    async def _token(self, text: str) -> None:
        if self.ttft_ms is None:
            self.ttft_ms = _ms(time.perf_counter() - self._started)
            await self.acknowledge()
        await self._send(self.frames.token(text))

    def close(self) -> None:
        """Forget what a cancelled turn still gathered."""
        self._outbox.close()


class _Decision:
    """The tool engine's one request, read in two steps: the telling token, then the call."""

    def __init__(self, turn: Turn) -> None:
        plan = turn.plan.tool
        assert plan is not None
        assert plan.prompt_ids is not None
        self._turn = turn
        self._text = ""
        self._until = time.perf_counter() + turn._policy.tool_timeout
        self._deltas = (
            None
            if plan.engine is None
            else plan.engine.generate(
                GenerationRequest(
                    request_id=f"tool-{uuid.uuid4().hex}",
                    prompt_ids=plan.prompt_ids,
                    max_tokens=turn._policy.tool_max_out,
                    sampling=GREEDY,
                    json_schema=schema(plan.tool_prompt),
                )
            )
        )
        self.said_yes = False

    async def told(self, timeout: float | None) -> bool:
        """The decision at its first telling token. Too late, malformed, or a dead engine: no."""
        left = self._until - time.perf_counter()
        try:
            async with asyncio.timeout(left if timeout is None else min(left, timeout)):
                self.said_yes = await self._read(lambda text: decision(text) is not None) and bool(decision(self._text))
        except TimeoutError:
            logger.info("turn %d: tool decision came too late, counted as no", self._turn.plan.turn)
        except EngineDead as dead:
            logger.error("turn %d: tool engine unavailable, counted as no: %s", self._turn.plan.turn, dead)
        if not self.said_yes:
            await self.close()
        return self.said_yes

    async def calls(self) -> list[dict[str, Any]]:
        """The calls after a yes; none where they do not come whole in time."""
        try:
            async with asyncio.timeout(self._until - time.perf_counter()):
                await self._read(lambda _: False)
        except TimeoutError:
            logger.warning("turn %d: tool call came too late, counted as no", self._turn.plan.turn)
        except EngineDead as dead:
            logger.error("turn %d: tool engine died in its call, counted as no: %s", self._turn.plan.turn, dead)
        finally:
            await self.close()
        return parse_calls(self._text)

    async def _read(self, enough: Callable[[str], bool]) -> bool:
        if self._deltas is None:
            raise EngineDead("the tool engine is not ready")
        async for delta in self._deltas:
            self._turn.tool_prompt_tokens = delta.prompt_tokens
            self._turn.tool_completion_tokens += len(delta.token_ids)
            self._text += delta.text
            if enough(self._text):
                return True
        return decision(self._text) is not None

    async def close(self) -> None:
        """Abort the request if it still runs."""
        if self._deltas is not None:
            await self._deltas.aclose()


def _style(chat: ChatPlan | None) -> OutputStyle:
    """What the style leaves out may bring a listed phrase together: its output is guarded once more."""
    if chat is None or chat.output_style == "raw":
        return RawStyle()
    return GuardedStyle(output_style(chat.output_style), chat.reply.automaton)


async def _next(pieces: AsyncGenerator[str, None]) -> str | None:
    return await anext(pieces, None)


async def _ended(task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` and wait until it is over. A cancellation of the waiting itself is raised after that."""
    task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as again:
            cancelled = again
    if not task.cancelled():
        task.exception()  # looked at: it ended with what is being left anyway
    if cancelled is not None:
        raise cancelled


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)

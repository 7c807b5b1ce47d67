"""One connection's conversation: who the character is, what was said, and the one turn that may run.

Idle, running or closing. Every message is handled to its end before the next one is looked at, and none of them waits
for generation: a turn is a task of its own, and only this class starts, cancels and awaits it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

from accounts.callers import Caller
from accounts.limits import RollingWindow
from inference.accounting import account
from inference.engines.base import Engine, EngineDead, EngineRole
from inference.prefix_cache import prime
from inference.prompting.conversation import Conversation
from inference.prompting.history import History
from inference.prompting.persona_resolver import DEFAULT_USER_NAME, ResolvedPersona
from inference.prompting.text_encoder import LONG_TEXT_CHARS
from inference.protocol.close_codes import CLOSE_RESTART
from inference.protocol.errors import ErrorCode, ProtocolError
from inference.protocol.frames import encode, error_frame
from inference.protocol.messages import (
    Cancel,
    ChatPrompt,
    End,
    Followup,
    Message,
    PersonaFields,
    Ping,
    Pong,
    Start,
    WarmHistory,
    WarmPersona,
)
from inference.reply import ReplyPlan
from inference.serving_context import RETRY_IN_S, ServingContext
from inference.turn import ChatPlan, ToolPlan, Turn, TurnPlan
from personas.snapshot import PersonaSnapshot

logger = logging.getLogger("yap.session")

CANCEL_GRACE_S = 2.0


class SessionState(StrEnum):
    """Where a connection is. Closing is final."""

    IDLE = "idle"
    RUNNING = "running"
    CLOSING = "closing"


Send = Callable[[str], Awaitable[None]]
Close = Callable[[int], Awaitable[None]]


class Session:
    """The conversation of one connection. All calls belong to the serving loop, :meth:`receive` one at a time."""

    def __init__(self, serving: ServingContext, caller: Caller, send: Send, close: Close) -> None:
        self.caller = caller
        self.session_id: str | None = None
        self.connection = uuid.uuid4().hex[:12]
        self.state = SessionState.IDLE
        self._serving = serving
        self._policy = serving.policy
        self._send = send
        self._close = close
        self._character: ResolvedPersona | None = None
        self._conversation: Conversation | None = None
        self._sampling: dict[str, float] = {}
        self._user_name: str | None = None
        self._turns = 0
        self._turn: Turn | None = None
        self._open: Turn | None = None  # the turn that is not in the record yet
        self._task: asyncio.Task[None] | None = None
        self._stopping = "disconnect"  # why the running turn is being cancelled, where it is
        self._warming: set[asyncio.Task[None]] = set()
        self._active_at = time.monotonic()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._messages = RollingWindow(caller.limits.messages)
        self._cancels = RollingWindow(caller.limits.cancels)
        self._updates = RollingWindow(caller.limits.persona_updates)

    # -- what the consumer calls -------------------------------------------------------------------

    def open(self) -> None:
        """The connection is accepted: the idle clock starts."""
        self._watch_idle()

    async def receive(self, text: str | None) -> None:
        """Handle one frame (None: it was binary) to its end. Bad input is answered and changes nothing."""
        if self.state is SessionState.CLOSING:
            return
        self._active_at = time.monotonic()
        request_id: str | None = None
        try:
            envelope = self._serving.decoder.open(text)
            request_id = envelope.request_id
            self._charge(envelope.kind, request_id)
            await self._handle(self._serving.decoder.decode(envelope))
        except ProtocolError as error:
            self._serving.metrics.refused(error.code)
            self._serving.ledger.record_error(self.caller.prefix, error.code, self._slug)
            await self._send(error_frame(error))
        except EngineDead as dead:
            logger.error("%s engine unavailable: %s", self._name, dead)
            await self._send(error_frame(_unavailable(request_id)))
        except Exception as error:
            await self._send(error_frame(self._internal_error(error, request_id)))

    def _internal_error(self, error: Exception, request_id: str | None) -> ProtocolError:
        reference = uuid.uuid4().hex[:12]
        logger.error("%s internal error, reference %s", self._name, reference, exc_info=error)
        return ProtocolError(
            ErrorCode.INTERNAL_ERROR, "something went wrong on our side", request_id=request_id, reference=reference
        )

    def govern(self, caller: Caller) -> None:
        """The key's limits were changed: they hold from the next message on."""
        self.caller = caller
        self._messages.window = caller.limits.messages
        self._cancels.window = caller.limits.cancels
        self._updates.window = caller.limits.persona_updates

    async def revoke(self) -> None:
        """The key is no longer good: say so and close."""
        if self.state is SessionState.CLOSING:
            return
        self.state = SessionState.CLOSING  # what arrives from now on is not looked at
        await self._stop_turn()
        error = ProtocolError(ErrorCode.KEY_REVOKED, "this API key was revoked or has expired")
        await self._send(error_frame(error))
        await self._finish(self._policy.close_unauthorized)

    async def drain(self, timeout: float) -> None:
        """The server stops: let the running turn end, cancel it after ``timeout`` seconds, then close."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout)
        if self.state is SessionState.CLOSING:
            return
        self.state = SessionState.CLOSING
        await self._stop_turn()
        await self._finish(CLOSE_RESTART)

    async def aclose(self) -> None:
        """The connection is gone, however it ended: abort what runs, keep nothing. Idempotent."""
        self.state = SessionState.CLOSING
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for task in (*self._warming, *([self._task] if self._task else [])):
            task.cancel()
        running = {task for task in (*self._warming, self._task) if task is not None}
        if running:
            await asyncio.wait(running, timeout=CANCEL_GRACE_S)

    @property
    def snapshot(self) -> PersonaSnapshot | None:
        """The version of a stored persona that this session holds; None where the session has none."""
        return self._character.snapshot if self._character else None

    @property
    def turns(self) -> int:
        """Turns so far."""
        return self._turns

    @property
    def running(self) -> bool:
        """Whether a turn runs now."""
        return self._task is not None and not self._task.done()

    # -- messages ----------------------------------------------------------------------------------

    def _charge(self, kind: str, request_id: str | None) -> None:
        """Take a slot of the window this kind of message belongs to. A refused message takes none."""
        if kind in ("ping", "pong", "end"):
            return
        window, code = (
            (self._cancels, ErrorCode.CANCEL_RATE_LIMITED)
            if kind == "cancel"
            else (self._messages, ErrorCode.MESSAGE_RATE_LIMITED)
        )
        wait = window.take(time.monotonic())
        if wait > 0:
            raise ProtocolError(
                code, "too many messages, slow down", kind=kind, request_id=request_id, retry_in=_whole_seconds(wait)
            )

    async def _handle(self, message: Message) -> None:
        try:
            match message:
                case Start():
                    await self._start(message)
                case Followup():
                    await self._followup(message)
                case Cancel():
                    await self._cancel(message)
                case ChatPrompt():
                    await self._chat_prompt(message)
                case WarmPersona():
                    await self._warm_persona(message)
                case WarmHistory():
                    await self._warm_history(message)
                case Ping():
                    await self._send(encode("pong", request_id=message.request_id))
                case Pong():
                    pass
                case End():
                    await self._stop_turn()
                    frame = encode("connection_closed", reason="client_request", request_id=message.request_id)
                    await self._send(frame)
                    await self._finish(self._policy.close_client_request)
        except ProtocolError as error:
            error.request_id = message.request_id
            error.kind = error.kind or ("chat_prompt" if isinstance(message, ChatPrompt) else "")
            raise

    async def _start(self, message: Start) -> None:
        await self._check_admission()
        fresh = message.session_id != self.session_id
        before = None if fresh else self._character
        user_name = message.user_identity or (None if fresh else self._user_name)
        resolver = self._serving.resolver
        if self.caller.own_chat_prompt:
            await resolver.encode_ahead(message.persona, before, user_name)
        character = resolver.cast(message.persona, before, message.tool_prompt, user_name, self.caller)
        chat = self._engine(EngineRole.CHAT)
        self._engine(EngineRole.TOOL)

        await self._stop_turn(heard=message.heard, barge_in=True)
        if fresh:
            self.session_id, self._conversation, self._sampling = message.session_id, None, {}
        self._user_name = user_name
        conversation = self._become(character)
        if message.sampling is not None:
            self._sampling = dict(message.sampling)
        if message.history is not None:
            await conversation.replace(message.history)
        utterance = message.utterance.strip() or None
        turn = self._plan(utterance, message.request_id, chat=chat, tool=True)
        turn.ack = partial(_ack_start, turn, message.session_id, character)
        if self._run(turn):
            # The turn's first step, or that of the tasks it makes, asks the engines: they work while the ack is sent.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await turn.acknowledge()

    async def _followup(self, message: Followup) -> None:
        if self._character is None:
            raise ProtocolError(ErrorCode.NO_ACTIVE_SESSION, "followup needs a started session")
        chat = self._chat_engine()
        await self._check_admission()
        await self._stop_turn(barge_in=True)
        self._become(self._serving.resolver.renewed(self._character, self._user_name))
        text = f"{self._policy.screen_checked_prefix} {message.analysis_text.strip()}".strip()
        self._run(self._plan(text, message.request_id, chat=chat, tool=False))

    async def _cancel(self, message: Cancel) -> None:
        if not await self._stop_turn(heard=message.heard):
            if message.heard is not None:
                self._cut_to(message.heard)
            await self._send(encode("done", cancelled=True, request_id=message.request_id))

    async def _chat_prompt(self, message: ChatPrompt) -> None:
        if self._character is None:
            raise ProtocolError(ErrorCode.NO_ACTIVE_SESSION, "chat_prompt needs a started session")
        self._chat_engine()
        before, fields = self._character, message.persona
        if not fields:
            raise ProtocolError(ErrorCode.MISSING_CHAT_PROMPT, "chat_prompt needs persona fields")
        resolver = self._serving.resolver
        if self.caller.own_chat_prompt:
            await resolver.encode_ahead(fields, before, self._user_name)
        character = resolver.cast(fields, before, None, self._user_name, self.caller)
        same_style = (character.gender, character.personality) == (before.gender, before.personality)
        if same_style and (fields.persona is None or character.slug == before.slug):
            await self._send(_ack_chat_prompt(message.request_id, code=204, message="no change"))
            return
        wait = self._updates.take(time.monotonic())
        if wait > 0:
            self._messages.give_back()
            raise ProtocolError(
                ErrorCode.CHAT_PROMPT_UPDATE_RATE_LIMITED, "too many persona updates", retry_in=_whole_seconds(wait)
            )
        conversation = self._become(character)
        await self._send(
            _ack_chat_prompt(
                message.request_id,
                code=200,
                message="updated",
                gender=character.gender,
                personality=character.personality,
            )
        )
        self._warm(conversation.prefix(character), None, message.request_id)

    async def _warm_persona(self, message: WarmPersona) -> None:
        self._chat_engine()
        if not self.caller.own_chat_prompt:
            raise ProtocolError(ErrorCode.INVALID_CHAT_PROMPT, "this key may not bring its own chat_prompt")
        prompt = message.chat_prompt.replace("{{user}}", self._user_name or DEFAULT_USER_NAME)
        await self._serving.resolver.encode_ahead(PersonaFields(chat_prompt=prompt), self._character, self._user_name)
        frame = encode(
            "warmed",
            segment="persona_static",
            bytes=len(message.chat_prompt.encode()),
            request_id=message.request_id,
        )
        self._warm([*self._serving.resolver.chat_ids(prompt)], frame, message.request_id)

    async def _warm_history(self, message: WarmHistory) -> None:
        self._chat_engine()
        form = self._serving.resolver.chat
        assert form is not None
        record = History(form, self._serving.resolver.history_limit(self._character))
        if len(message.history_text) > LONG_TEXT_CHARS:
            await asyncio.to_thread(record.replace, message.history)
        else:
            record.replace(message.history)
        persona = self._character.chat_ids if self._character else form.before_system
        frame = encode(
            "warmed", segment="history", bytes=len(message.history_text.encode()), request_id=message.request_id
        )
        self._warm([*persona, *record.ids], frame, message.request_id)

    # -- the character -----------------------------------------------------------------------------

    def _become(self, character: ResolvedPersona) -> Conversation:
        """Take the character on; what was said stays."""
        self._character = character
        if self._conversation is None:
            self._conversation = Conversation(self._serving.resolver)
        self._conversation.become(character)
        return self._conversation

    @property
    def _slug(self) -> str:
        return (self._character.slug if self._character else None) or ""

    @property
    def _name(self) -> str:
        return f"key={self.caller.prefix} conn={self.connection} session={_loggable(self.session_id)}"

    # -- turns -------------------------------------------------------------------------------------

    async def _check_admission(self) -> None:
        """Whether this key may have another turn on this server now."""
        if self._serving.draining:
            raise ProtocolError(ErrorCode.SERVER_DRAINING, "the server is stopping", retry_in=RETRY_IN_S)
        budget = self._serving.budget
        left = await budget.remaining(self.caller)
        if left is not None and left <= 0:
            raise ProtocolError(
                ErrorCode.TOKEN_BUDGET_EXHAUSTED, "this key's tokens for today are used up", retry_in=budget.retry_in()
            )

    def _engine(self, role: EngineRole) -> Engine | None:
        """The engine, None where it is not deployed. Raises :class:`EngineDead` where it should be there and is not."""
        return self._serving.engines.engine(role) if self._serving.engines.deployed(role) else None

    def _chat_engine(self) -> Engine:
        chat = self._engine(EngineRole.CHAT)
        if chat is None:
            raise ProtocolError(ErrorCode.CHAT_NOT_DEPLOYED, "this server runs no chat engine")
        return chat

    def _plan(self, utterance: str | None, request_id: str | None, *, chat: Engine | None, tool: bool) -> Turn:
        character, conversation = self._character, self._conversation
        assert character is not None
        assert conversation is not None
        self._turns += 1
        chat_plan = tool_plan = None
        if chat is not None:
            sampling = self._serving.sampling.merge({**character.sampling, **self._sampling})
            max_out = min(self.caller.limits.max_out or self._policy.max_out, self._policy.max_out)
            reply = ReplyPlan(
                prompt_ids=(),
                sampling=sampling,
                max_tokens=max_out,
                automaton=character.compiled_phrases.automaton,
                logit_bias=character.compiled_phrases.logit_bias,
                request_id=f"chat-{self.connection}-{self._turns}",
                spelling=character.compiled_phrases.spelling,
            )
            prompt = partial(conversation.chat_prompt, character)
            chat_plan = ChatPlan(chat, prompt, reply, character.output_style)
        if tool and self._serving.engines.deployed(EngineRole.TOOL):
            ids = None if utterance is None else conversation.tool_prompt(character, utterance)
            tool_plan = ToolPlan(self._engine(EngineRole.TOOL), ids, character.tool_prompt)
        plan = TurnPlan(self._turns, request_id, utterance, tool_plan, chat_plan)
        return Turn(plan, self._policy.turn, self._send)

    def _run(self, turn: Turn) -> bool:
        if self.state is SessionState.CLOSING:  # while the turn before it was being stopped
            return False
        self.state = SessionState.RUNNING
        self._turn = turn
        self._stopping = "disconnect"
        self._task = asyncio.create_task(self._drive(turn))
        self._open = turn
        # A task that is cancelled before its first step never enters its coroutine.
        self._task.add_done_callback(lambda _: self._ended(turn))
        return True

    async def _drive(self, turn: Turn) -> None:
        try:
            await turn.run()
        finally:
            self._ended(turn)

    def _ended(self, turn: Turn) -> None:
        """Once per turn, before anything else can begin."""
        if self._open is not turn:
            return
        self._open = None
        turn.close()
        if self.state is SessionState.RUNNING:
            self.state = SessionState.IDLE
        self._active_at = time.monotonic()
        if self._conversation is not None and self._conversation.remember(turn):
            self._background(self._prime_anew())
        account(self._serving, self.caller, turn, name=self._name, persona=self._slug, stopped_by=self._stopping)

    async def _stop_turn(self, *, heard: int | None = None, barge_in: bool = False) -> bool:
        """Cancel the running turn, if there is one, and send its ``done``. True when this ended it."""
        task, turn = self._task, self._turn
        if task is None or turn is None or task.done():
            if heard is not None and barge_in:
                self._cut_to(heard)
            return False
        started = time.perf_counter()
        self._stopping = "barge-in" if barge_in else "cancel"
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
        stopped = not turn.done_sent
        if heard is not None:
            self._cut_to(heard)
        if stopped:
            await turn.acknowledge()
            await self._send(turn.frames.done(cancelled=True))
        self._serving.metrics.cancel_seconds.observe(time.perf_counter() - started)
        return stopped

    def _cut_to(self, heard: int) -> None:
        if self._conversation is not None:
            self._conversation.cut_last_reply(heard)

    # -- warming -----------------------------------------------------------------------------------

    def _warm(self, ids: list[int], frame: str | None, request_id: str | None) -> None:
        """Prime the prefix cache in the background; ``frame`` is sent when it is done."""
        self._background(self._prime(ids, frame, request_id))

    async def _prime(self, ids: list[int], frame: str | None, request_id: str | None) -> None:
        try:
            if ids:  # a template may have nothing before the first word
                await prime(self._chat_engine(), ids)
        except EngineDead as dead:
            logger.warning("%s could not warm: %s", self._name, dead)
            frame = error_frame(_unavailable(request_id))
        except Exception as error:
            frame = error_frame(self._internal_error(error, request_id))
        if frame is not None:
            await self._send(frame)

    async def _prime_anew(self) -> None:
        """The record was trimmed: what is left of it is computed now, while the user listens, not when they speak."""
        character, conversation = self._character, self._conversation
        if self.state is SessionState.CLOSING or character is None or conversation is None:
            return
        prefixes = {
            EngineRole.CHAT: conversation.prefix(character),
            EngineRole.TOOL: conversation.tool_prefix(character),
        }
        try:
            for role, ids in prefixes.items():
                if ids and (engine := self._engine(role)) is not None:
                    await prime(engine, ids)
        except Exception as error:
            logger.warning("%s could not prime its record: %s", self._name, error)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._warming.add(task)
        task.add_done_callback(self._warming.discard)

    # -- closing -----------------------------------------------------------------------------------

    async def _finish(self, code: int) -> None:
        self.state = SessionState.CLOSING
        await self._close(code)

    def _watch_idle(self) -> None:
        """One timer for the whole connection: it looks at the clock when it fires, no frame ever touches it."""
        left = self._active_at + self._policy.idle_timeout - time.monotonic()
        if self.running:
            left = self._policy.idle_timeout
        if left <= 0:
            self.state = SessionState.CLOSING
            self._background(self._finish(self._policy.close_idle))
            return
        self._idle_timer = asyncio.get_running_loop().call_later(left, self._watch_idle)


def _unavailable(request_id: str | None) -> ProtocolError:
    return ProtocolError(ErrorCode.ENGINE_UNAVAILABLE, "the engine is unavailable", request_id=request_id)


def _ack_start(turn: Turn, session_id: str, character: ResolvedPersona) -> str:
    return turn.frames.ack(
        session_id=session_id,
        now=_local_now(),
        gender=character.gender,
        personality=character.personality,
        chat_prompt=character.chat_prompt is not None,
    )


def _ack_chat_prompt(request_id: str | None, **fields: Any) -> str:
    ok = fields["code"] < 400
    return encode("ack", **{"for": "chat_prompt"}, ok=ok, request_id=request_id, **fields)


def _whole_seconds(wait: float) -> int:
    return max(1, int(-(-wait // 1)))


def _loggable(session_id: str | None) -> str:
    """A client's session id as one harmless word."""
    return "".join(c if c.isalnum() or c in "._:-" else "?" for c in (session_id or "-")[:48])


def _local_now() -> str:
    now = datetime.now().astimezone()
    part = ("Night", "Morning", "Afternoon", "Evening")[(now.hour >= 5) + (now.hour >= 12) + (now.hour >= 17)]
    return f"{now:%d/%m/%Y %A %I:%M %p} ({part})"

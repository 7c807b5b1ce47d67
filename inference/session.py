"""One connection's session: handles messages in order and holds the persona, the history and the running turn.

No handler waits for generation: a turn is a task of the :class:`TurnRunner`. A session is idle, running or closing;
closing is final.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from accounts.callers import Caller
from inference.accounting import account, account_refusal
from inference.failures import client_error
from inference.idle_timer import IdleTimer
from inference.prompting.conversation import Conversation
from inference.prompting.persona import PersonaError, ResolvedPersona
from inference.protocol.close_codes import CLOSE_POLICY, CLOSE_RESTART
from inference.protocol.errors import ErrorCode, ProtocolError, persona_refused
from inference.protocol.frames import TurnFrames, ack_chat_prompt, ack_start, encode, error_frame, warmed
from inference.protocol.messages import (
    Cancel,
    ChatPrompt,
    End,
    Followup,
    Message,
    Ping,
    Pong,
    Start,
    WarmHistory,
    WarmPersona,
)
from inference.serving_context import RECONNECT_IN_S, ServingContext
from inference.session_limits import SessionLimits, TooManyMessages
from inference.session_state import SessionState, history_prefix, parse_history, persona_prefix, resolve_persona
from inference.turn import Turn
from inference.turn_admission import DeployedEngines, engines_for_start, require_chat_engine
from inference.turn_budget import TurnBudget
from inference.turn_planner import TurnPlanner
from inference.turn_result import StopReason, TurnResult
from inference.turn_runner import CANCEL_GRACE_S, TurnRunner
from inference.warm_ups import Answer, WarmUps
from personas.snapshot import PersonaSnapshot

logger = logging.getLogger("yap.session")

SendText = Callable[[str], Awaitable[None]]
CloseConnection = Callable[[int], Awaitable[None]]


class Session:
    """The session of one connection. All calls belong to the serving loop, :meth:`receive` one at a time.

    Args:
        context: the parts of the process that sessions share.
        caller: the authenticated key; replaced where the key's rights or limits change.
        send: sends one frame.
        close: closes the connection with a code.
    """

    def __init__(self, context: ServingContext, caller: Caller, send: SendText, close: CloseConnection) -> None:
        self.caller = caller
        self.connection = uuid.uuid4().hex[:12]
        self.turns = 0
        self._context = context
        self._resolver = context.resolver
        self._policy = context.policy
        self._send = send
        self._close = close
        self._closing = False
        self._closed: asyncio.Future[None] | None = None  # holds a reference to the running close
        self._state = SessionState()
        self._limits = SessionLimits(caller.limits)
        self._budget = TurnBudget(context)
        self.cache_salt = context.policy.cache_salt(caller)
        self._planner = TurnPlanner(context, self.connection, self.cache_salt)
        self._runner = TurnRunner(context.policy.turn, context.metrics, send, self._on_turn_end)
        self._warm_ups = WarmUps(context, self.cache_salt, self.connection, send)
        self._idle = IdleTimer(self._policy.idle_timeout_s, lambda: self._runner.running, self._on_idle)

    # -- called by the consumer, the registry and the config watcher ----------------------------------

    def open(self) -> None:
        """Start the idle clock: the connection is admitted."""
        self._idle.start()

    async def receive(self, text: str | None) -> None:
        """Handle one frame to its end. Bad input is answered and changes nothing.

        Args:
            text: the frame's text; None for a binary frame.
        """
        if self._closing:
            return
        self._idle.touch()
        request_id: str | None = None
        try:
            envelope = self._context.decoder.open(text)
            request_id = envelope.request_id
            self._limits.charge(envelope.kind, request_id)
            await self._handle(self._context.decoder.decode(envelope))
        except ProtocolError as error:
            await self._refuse(error, len(text or ""))
        except TooManyMessages:
            await self._close_abusive()
        except Exception as error:
            await self._send(error_frame(client_error(logger, self._name, error, request_id)))

    async def _refuse(self, error: ProtocolError, characters: int) -> None:
        """Answer a refused message; close the connection of a client that goes on sending such messages."""
        account_refusal(self._context, self.caller, error.code, self._state.slug)
        await self._send(error_frame(error))
        try:
            self._limits.charge_refusal(characters)
        except TooManyMessages:
            await self._close_abusive()

    async def _close_abusive(self) -> None:
        logger.info("%s sends too many messages: closed", self._name)
        self._stop_receiving()
        await self._runner.stop(StopReason.ABUSE)
        await self._close(CLOSE_POLICY)

    def apply_caller(self, caller: Caller) -> None:
        """Apply changed rights and limits of the key, from the next message on."""
        self.caller = caller
        self._limits.change(caller.limits)

    async def revoke(self) -> None:
        """Tell the client that the key is revoked or expired, and close."""
        if self._closing:
            return
        self._stop_receiving()
        await self._runner.stop(StopReason.REVOKED)
        error = ProtocolError(ErrorCode.KEY_REVOKED, "this API key was revoked or has expired")
        await self._send(error_frame(error))
        await self._close(self._policy.close_unauthorized)

    async def drain(self, timeout_s: float) -> None:
        """Let the running turn end, cancel it after ``timeout_s`` seconds; then send ``draining`` and close."""
        await self._runner.wait(timeout_s)
        if self._closing:
            return
        self._stop_receiving()
        await self._runner.stop(StopReason.DRAIN)
        await self._send(encode("draining", reconnect_in=RECONNECT_IN_S))
        await self._close(CLOSE_RESTART)

    async def aclose(self) -> None:
        """Abort everything that runs: the connection is gone. May be called again."""
        self._stop_receiving()
        await asyncio.gather(self._runner.abort(), self._warm_ups.aclose(CANCEL_GRACE_S))

    @property
    def running(self) -> bool:
        """Whether a turn runs now."""
        return self._runner.running

    @property
    def snapshot(self) -> PersonaSnapshot | None:
        """The version of a stored persona that this session holds; None where the session has none."""
        return self._state.snapshot

    # -- messages ----------------------------------------------------------------------------------

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
                    await self._end(message)
        except (ProtocolError, PersonaError) as error:
            refusal = persona_refused(error) if isinstance(error, PersonaError) else error
            refusal.request_id = message.request_id
            refusal.kind = refusal.kind or ("chat_prompt" if isinstance(message, ChatPrompt) else "")
            raise refusal from None

    async def _start(self, message: Start) -> None:
        await self._budget.check(self.caller)
        is_new = message.session_id != self._state.session_id
        chosen = self._resolver.choose(
            message.persona,
            None if is_new else self._state.chosen,
            self.caller,
            tool_template=message.tool_prompt,
            user_name=message.user_identity,
            session_id=message.session_id,
        )
        history = None if message.history_text is None else await parse_history(message.history_text)
        persona = await resolve_persona(self._resolver, chosen, self.caller)
        engines = engines_for_start(self._context)

        await self._runner.stop(StopReason.BARGE_IN)
        if is_new:
            self._state.reset(message.session_id)
        else:
            self._state.cut_last_reply(message.heard)
        conversation = self._state.adopt(chosen, persona, self._resolver)
        if message.sampling is not None:
            self._state.sampling = dict(message.sampling)
        if history is not None:
            await conversation.replace(history)
        ack = partial(
            ack_start,
            session_id=message.session_id,
            gender=persona.gender,
            personality=persona.personality,
            has_chat_prompt=persona.chat_prompt is not None,
        )
        started = await self._begin_turn(
            message.utterance.strip(), message.request_id, engines, persona, conversation, ack
        )
        if started is not None:
            # The task's first step, or that of the tasks it creates, submits the engine requests: the engines work
            # while the ack is sent.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await started.acknowledge()

    async def _followup(self, message: Followup) -> None:
        if (chosen := self._state.chosen) is None:
            raise ProtocolError(ErrorCode.NO_ACTIVE_SESSION, "followup needs a started session")
        engines = DeployedEngines(require_chat_engine(self._context), None, asks_tool=False)
        await self._budget.check(self.caller)
        persona = await resolve_persona(self._resolver, chosen, self.caller)
        await self._runner.stop(StopReason.BARGE_IN)
        conversation = self._state.adopt(chosen, persona, self._resolver)
        text = f"{self._policy.screen_checked_prefix} {message.analysis_text.strip()}".strip()
        await self._begin_turn(text, message.request_id, engines, persona, conversation, None)

    async def _cancel(self, message: Cancel) -> None:
        stopped = await self._runner.stop(StopReason.CANCEL)
        self._state.cut_last_reply(message.heard)
        if not stopped:
            await self._send(encode("done", cancelled=True, request_id=message.request_id))

    async def _end(self, message: End) -> None:
        await self._runner.stop(StopReason.END)
        await self._send(encode("connection_closed", reason="client_request", request_id=message.request_id))
        self._stop_receiving()
        await self._close(self._policy.close_client_request)

    async def _chat_prompt(self, message: ChatPrompt) -> None:
        if (current := self._state.chosen) is None:
            raise ProtocolError(ErrorCode.NO_ACTIVE_SESSION, "chat_prompt needs a started session")
        require_chat_engine(self._context)
        if not message.persona:
            raise ProtocolError(ErrorCode.MISSING_CHAT_PROMPT, "chat_prompt needs persona fields")
        before = self._resolver.describe(current)
        chosen = self._resolver.choose(message.persona, current, self.caller)
        persona = await resolve_persona(self._resolver, chosen, self.caller)
        if self._resolver.describe(chosen) == before:
            await self._send(ack_chat_prompt(message.request_id, code=204, message="no change"))
            return
        self._limits.charge_persona_update()
        conversation = self._state.adopt(chosen, persona, self._resolver)
        labels = {"gender": persona.gender, "personality": persona.personality}
        await self._send(ack_chat_prompt(message.request_id, code=200, message="updated", **labels))
        self._warm(conversation.chat_prefix(persona), None, message.request_id)

    async def _warm_persona(self, message: WarmPersona) -> None:
        require_chat_engine(self._context)
        await self._budget.check(self.caller)
        prompt_ids = await persona_prefix(self._resolver, self._state, self.caller, message.chat_prompt)
        self._warm(prompt_ids, warmed("persona_static", message.chat_prompt, message.request_id), message.request_id)

    async def _warm_history(self, message: WarmHistory) -> None:
        require_chat_engine(self._context)
        await self._budget.check(self.caller)
        prompt_ids = await history_prefix(self._resolver, self._state, self.caller, message.history_text)
        self._warm(prompt_ids, warmed("history", message.history_text, message.request_id), message.request_id)

    # -- turns -------------------------------------------------------------------------------------

    async def _begin_turn(
        self,
        text: str,
        request_id: str | None,
        engines: DeployedEngines,
        persona: ResolvedPersona,
        conversation: Conversation,
        ack: Callable[[TurnFrames], str] | None,
    ) -> Turn | None:
        self.turns += 1
        plan = self._planner.plan(
            self.turns,
            request_id,
            text or None,
            engines=engines,
            persona=persona,
            conversation=conversation,
            sampling=self._state.sampling,
            max_out=min(self.caller.limits.max_out or self._policy.max_out, self._policy.max_out),
        )
        frames, turn = TurnFrames(plan.turn, plan.request_id), None
        try:
            await self._budget.reserve(self.caller, plan)
            turn = self._runner.start(plan, frames, None if ack is None else partial(ack, frames))
        finally:
            if turn is None:
                self._budget.settle_unused()
                conversation.keep_pending_for_later()
        return turn

    def _on_turn_end(self, result: TurnResult) -> None:
        """Record and account one ended turn."""
        self._idle.touch()
        account(self._context, self.caller, result, self._budget.take(), session_name=self._name)
        conversation, chosen = self._state.conversation, self._state.chosen
        if conversation is not None and conversation.append(result) and not self._closing and chosen is not None:
            persona = self._resolver.resolve(chosen, self.caller)
            self._warm_ups.refresh(conversation.prefixes(persona), self._name)

    # -- warm-ups, errors, closing ---------------------------------------------------------------------

    def _warm(self, prompt_ids: Sequence[int], frame: str | None, request_id: str | None) -> None:
        """Compute a prompt in the background; then send ``frame``, or the error. ``frame`` None sends nothing."""
        self._warm_ups.start(self.caller, self._state.slug, prompt_ids, Answer(frame, request_id), self._name)

    def _stop_receiving(self) -> None:
        """Handle no more messages and start no more turns."""
        self._closing = True
        self._runner.close()
        self._idle.stop()

    def _on_idle(self) -> None:
        self._stop_receiving()
        self._closed = asyncio.ensure_future(self._close(self._policy.close_idle))

    @property
    def _name(self) -> str:
        return f"key={self.caller.prefix} conn={self.connection} session={self._state.log_name}"

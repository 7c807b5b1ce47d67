"""One connection's session: handles messages in order and holds the persona, the history and the running turn.

No handler waits for generation: a turn is a task of the :class:`TurnRunner`. A session is idle, running or closing;
closing is final.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from functools import partial

from accounts.callers import Caller
from inference.accounting import account_refusal
from inference.failures import client_error
from inference.idle_timer import IdleTimer
from inference.prompting.persona import PersonaError
from inference.protocol.close_codes import CLOSE_POLICY, CLOSE_RESTART, CLOSE_TAKEN_OVER
from inference.protocol.errors import ErrorCode, ProtocolError, persona_refused
from inference.protocol.frames import ack_chat_prompt, ack_start, encode, error_frame
from inference.protocol.messages import (
    Cancel,
    ChatPrompt,
    End,
    Followup,
    Message,
    Ping,
    Pong,
    Resume,
    Start,
    WarmHistory,
    WarmPersona,
)
from inference.resumable_sessions import ResumableSessions
from inference.serving_context import RECONNECT_IN_S, ServingContext
from inference.session_limits import SessionLimits, TooManyMessages
from inference.session_state import SessionState, parse_history, resolve_persona
from inference.session_turns import SessionTurns
from inference.turn_admission import DeployedEngines, engines_for_start, require_chat_engine
from inference.turn_result import StopReason
from inference.turn_runner import CANCEL_GRACE_S
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
        resumable: the sessions that another connection can take over; None: nothing can be resumed.
    """

    within_connection = False

    def __init__(
        self,
        context: ServingContext,
        caller: Caller,
        send: SendText,
        close: CloseConnection,
        resumable: ResumableSessions | None = None,
    ) -> None:
        self.caller = caller
        self.connection = uuid.uuid4().hex[:12]
        self._context = context
        self._resolver = context.resolver
        self._policy = context.policy
        self._send = send
        self._close = close
        self._closing = False
        self._keeps = True  # the record outlives the connection
        self._left = False  # the turns go on without this connection
        self._resumable = ResumableSessions() if resumable is None else resumable
        self._closed: asyncio.Future[None] | None = None  # holds a reference to the running close
        self._state = SessionState()
        self._limits = SessionLimits(caller.limits)
        self._idle = IdleTimer(self._policy.idle_timeout_s, lambda: self.running, self._on_idle)
        self.cache_salt = context.policy.cache_salt(caller)
        self._turns = self._new_turns()

    def _new_turns(self) -> SessionTurns:
        own = (self._state, self.connection, self.cache_salt, self._send)
        return SessionTurns(self._context, *own, caller=lambda: self.caller, on_end=self._idle.touch)

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
            await self._send(error_frame(client_error(logger, self._turns.name, error, request_id)))

    async def _refuse(self, error: ProtocolError, characters: int) -> None:
        """Answer a refused message; close the connection of a client that goes on sending such messages."""
        account_refusal(self._context, self.caller, error.code, self._state.slug)
        await self._send(error_frame(error))
        try:
            self._limits.charge_refusal(characters)
        except TooManyMessages:
            await self._close_abusive()

    async def _close_abusive(self) -> None:
        logger.info("%s sends too many messages: closed", self._turns.name)
        await self._shut(StopReason.ABUSE, CLOSE_POLICY)

    def apply_caller(self, caller: Caller) -> None:
        """Apply changed rights and limits of the key, from the next message on."""
        self.caller = caller
        self._limits.change(caller.limits)

    async def revoke(self) -> None:
        """Tell the client that the key is revoked or expired, and close."""
        if self._closing:
            return
        self._keeps = False
        error = ProtocolError(ErrorCode.KEY_REVOKED, "this API key was revoked or has expired")
        await self._shut(StopReason.REVOKED, self._policy.close_unauthorized, error_frame(error))
        self._turns.forget(self.caller)

    async def drain(self, timeout_s: float) -> None:
        """Let the running turn end, cancel it after ``timeout_s`` seconds; then send ``draining`` and close."""
        await self._turns.runner.wait(timeout_s)
        if not self._closing:
            frame = encode("draining", reconnect_in=RECONNECT_IN_S)
            await self._shut(StopReason.DRAIN, CLOSE_RESTART, frame)

    async def aclose(self) -> None:
        """Abort what runs, except a turn that can be resumed, and keep the record. May be called again."""
        if self._left:
            return
        self._stop_receiving()
        self._resumable.closed(self.caller, self._turns)
        if self._keeps and self._resumable.put(self.caller, self._turns):
            self._left = True
            await self._turns.warm_ups.aclose(CANCEL_GRACE_S)
            return
        await asyncio.gather(self._turns.runner.abort(), self._turns.warm_ups.aclose(CANCEL_GRACE_S))
        if self._keeps:
            self._keeps = False
            self._turns.keep(self.caller)

    def hand_over(self) -> None:
        """Give the turns up and close the connection: another connection goes on with them."""
        self._left = True
        self._state = SessionState()
        self._turns = self._new_turns()
        self._stop_receiving()
        self._closed = asyncio.ensure_future(self._close(CLOSE_TAKEN_OVER))

    async def _shut(self, reason: StopReason, code: int, last_frame: str | None = None) -> None:
        """Stop the running turn, send the last frame and close."""
        self._stop_receiving()
        await self._turns.runner.stop(reason)
        if last_frame is not None:
            await self._send(last_frame)
        await self._close(code)

    @property
    def turns(self) -> int:
        """The number of turns that were begun."""
        return self._turns.count

    @property
    def running(self) -> bool:
        """Whether a turn runs now."""
        return self._turns.runner.running

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
                case WarmPersona() | WarmHistory():
                    await self._turns.warm_up(message)
                case Resume():
                    await self._resume(message)
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
        await self._turns.budget.check(self.caller)
        is_new = message.session_id != self._state.session_id
        copies = message.history_text is None  # else the record is not used
        kept = await self._context.kept.fetch(self.caller, message.session_id, copies=copies) if is_new else None
        state = self._state
        if is_new:
            state = SessionState(message.session_id) if kept is None or message.history_text is not None else kept
        chosen = self._resolver.choose(
            message.persona,
            state.chosen,
            self.caller,
            tool_template=message.tool_prompt,
            user_name=message.user_identity,
            session_id=message.session_id,
        )
        history = None if message.history_text is None else await parse_history(message.history_text)
        persona = await resolve_persona(self._resolver, chosen, self.caller)
        engines = engines_for_start(self._context)

        await self._turns.runner.stop(StopReason.BARGE_IN)
        await self._resumable.end(self.caller, message.session_id)
        if kept is not None and not self._context.kept.take(self.caller, kept):
            state = SessionState(message.session_id)  # another connection was faster
        resumed_turns = state.turns if state is kept else None
        if is_new:
            self._resumable.closed(self.caller, self._turns)
            self._state.become(state)
            self._resumable.opened(self.caller, self._turns, self)
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
            resumed_turns=resumed_turns,
        )
        started = await self._turns.begin(
            message.utterance.strip(), message.request_id, engines, persona, conversation, ack
        )
        if started is not None:
            # The task's first step, or that of the tasks it creates, submits the engine requests: the engines work
            # while the ack is sent.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await started.line.acknowledge()

    async def _resume(self, message: Resume) -> None:
        if self._resumable.find(self.caller, message) is not self._turns:
            await self._turns.runner.stop(StopReason.BARGE_IN)
            turns = self._resumable.find(self.caller, message)  # another connection may have been faster
            self._resumable.closed(self.caller, self._turns)
            self._resumable.take(self.caller, turns)
            logger.info("%s resumed by conn=%s turn=%d", turns.name, self.connection, message.turn)
            self._turns, self._state = turns, turns.state
            turns.attach(self._send, caller=lambda: self.caller, on_end=self._idle.touch)
            self._resumable.opened(self.caller, turns, self)
        await self._turns.resume(self._send, message)

    async def _followup(self, message: Followup) -> None:
        if (chosen := self._state.chosen) is None:
            raise ProtocolError(ErrorCode.NO_ACTIVE_SESSION, "followup needs a started session")
        engines = DeployedEngines(require_chat_engine(self._context), None, asks_tool=False)
        await self._turns.budget.check(self.caller)
        persona = await resolve_persona(self._resolver, chosen, self.caller)
        await self._turns.runner.stop(StopReason.BARGE_IN)
        conversation = self._state.adopt(chosen, persona, self._resolver)
        text = f"{self._policy.screen_checked_prefix} {message.analysis_text.strip()}".strip()
        await self._turns.begin(text, message.request_id, engines, persona, conversation, None)

    async def _cancel(self, message: Cancel) -> None:
        stopped = await self._turns.runner.stop(StopReason.CANCEL)
        self._state.cut_last_reply(message.heard)
        if not stopped:
            await self._send(encode("done", cancelled=True, request_id=message.request_id))

    async def _end(self, message: End) -> None:
        self._keeps = False
        await self._turns.runner.stop(StopReason.END)
        self._turns.forget(self.caller)
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
        self._turns.warm(conversation.chat_prefix(persona), None, message.request_id)

    # -- closing -----------------------------------------------------------------------------------

    def _stop_receiving(self) -> None:
        """Handle no more messages and start no more turns."""
        self._closing = True
        self._turns.runner.close()
        self._idle.stop()

    def _on_idle(self) -> None:
        self._stop_receiving()
        self._closed = asyncio.ensure_future(self._close(self._policy.close_idle))

"""The turns of one session: plan and start a turn, account its end, keep its frames."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from accounts.callers import Caller
from inference.accounting import account
from inference.prompting.conversation import Conversation
from inference.prompting.persona import ResolvedPersona
from inference.protocol.frames import TurnFrames, ack_resume, warmed
from inference.protocol.messages import Resume, WarmHistory, WarmPersona
from inference.serving_context import ServingContext
from inference.session_state import SessionState, history_prefix, persona_prefix
from inference.turn import Turn
from inference.turn_admission import DeployedEngines, require_chat_engine
from inference.turn_budget import TurnBudget
from inference.turn_line import FrameSender
from inference.turn_planner import TurnPlanner
from inference.turn_result import TurnResult
from inference.turn_runner import TurnRunner
from inference.warm_ups import Answer, WarmUps

logger = logging.getLogger("yap.session")


class SessionTurns:
    """Plans, starts and accounts the turns of one session, one at a time. All calls belong to the serving loop.

    Attributes:
        count: turns that were begun; the number of the last one.
        state: the session's state.
        runner: runs the turn.
        budget: holds the running turn's token reservation.
        warm_ups: the session's background requests.

    Args:
        context: the parts of the process that sessions share.
        state: the session's state.
        connection: the name of the connection; also the affinity to the replicas of an engine.
        cache_salt: the key's share of the prefix cache.
        send: sends one frame.
        caller: returns the key with its current rights.
        on_end: called after each turn, before its ``done``.
    """

    def __init__(
        self,
        context: ServingContext,
        state: SessionState,
        connection: str,
        cache_salt: str | None,
        send: FrameSender,
        caller: Callable[[], Caller],
        on_end: Callable[[], None],
    ) -> None:
        self.count = 0
        self.budget = TurnBudget(context)
        self.runner = TurnRunner(context.policy.turn, context.metrics, send, self._on_turn_end)
        self.warm_ups = WarmUps(context, cache_salt, connection, send)
        self._context = context
        self.state = state
        self._connection = connection
        self._attached = 0
        self._planner = TurnPlanner(context, connection, cache_salt)
        self._caller = caller
        self._on_end = on_end

    async def begin(
        self,
        text: str,
        request_id: str | None,
        engines: DeployedEngines,
        persona: ResolvedPersona,
        conversation: Conversation,
        ack: Callable[[TurnFrames], str] | None,
    ) -> Turn | None:
        """Plan a turn, reserve its tokens and start it. The turn before was stopped.

        Args:
            text: the user's text; empty where the character speaks first.
            request_id: echoed in every frame of the turn; None where the message had none.
            engines: the engines that take part.
            persona: the resolved persona.
            conversation: the history.
            ack: makes the first frame; None where the message has no ack.

        Returns:
            The turn, or None where the session was closed in the meantime.

        Raises:
            ProtocolError: ``token_budget_exhausted``.
        """
        caller, policy, attached = self._caller(), self._context.policy, self._attached
        plan = self._planner.plan(
            self.count + 1,
            request_id,
            text or None,
            engines=engines,
            persona=persona,
            conversation=conversation,
            sampling=self.state.sampling,
            max_out=min(caller.limits.max_out or policy.max_out, policy.max_out),
        )
        frames, turn = TurnFrames(plan.turn, plan.request_id), None
        try:
            await self.budget.reserve(caller, plan)
            if attached == self._attached:  # else another connection goes on with the session
                turn = self.runner.start(plan, frames, None if ack is None else partial(ack, frames))
                self.count += turn is not None
        finally:
            if turn is None:
                self.budget.settle_unused()
                conversation.keep_pending_for_later()
        return turn

    # -- lost connections --------------------------------------------------------------------------

    def detach(self) -> None:
        """Send all further frames nowhere: the connection is lost."""
        self._attached += 1
        self.runner.close()
        self._redirect(_to_nobody)

    def attach(self, send: FrameSender, caller: Callable[[], Caller], on_end: Callable[[], None]) -> None:
        """Belong to another connection from now on. Frames go there once :meth:`resume` is called.

        Args:
            send: sends one frame.
            caller: returns the key with its current rights.
            on_end: called after each turn, before its ``done``.
        """
        self._attached += 1
        self._caller, self._on_end = caller, on_end
        self._redirect(send)
        self.runner.reopen()

    async def resume(self, send: FrameSender, message: Resume) -> None:
        """Send the ack and the frames of the last turn that the client lacks; later frames wait for them."""
        turn, attached = self.runner.last, self._attached
        assert turn is not None
        replayed = asyncio.Event()

        async def send_afterwards(frame: str) -> None:
            await replayed.wait()
            await send(frame)

        self.runner.redirect(send_afterwards)
        try:
            ack = ack_resume(message.session_id, message.turn, message.request_id)
            for frame in (ack, *turn.missing(message.received)):
                await send(frame)
        finally:
            if attached == self._attached:
                self.runner.redirect(send)
            replayed.set()

    def keep(self, caller: Caller) -> None:
        """Put the record to the kept sessions."""
        self._context.kept.put(caller, self.state)

    def drop_kept(self, caller: Caller) -> None:
        """Remove the record from the kept sessions."""
        self._context.kept.take(caller, self.state)

    def forget(self, caller: Caller) -> None:
        """Remove the record from the kept sessions, and its copy in other processes."""
        if self.state.session_id is not None:
            self._context.kept.forget(caller, self.state.session_id)

    def _redirect(self, send: FrameSender) -> None:
        self.runner.redirect(send)
        self.warm_ups.redirect(send)

    # -- background --------------------------------------------------------------------------------

    async def warm_up(self, message: WarmPersona | WarmHistory) -> None:
        """Compute the prompt that a message names, in the background.

        Raises:
            ProtocolError: no chat engine, no tokens left, or a history that cannot be read.
            PersonaError: a persona that cannot be used.
        """
        require_chat_engine(self._context)
        caller, resolver = self._caller(), self._context.resolver
        await self.budget.check(caller)
        prompt_ids: Sequence[int]
        if isinstance(message, WarmPersona):
            segment, text = "persona_static", message.chat_prompt
            prompt_ids = await persona_prefix(resolver, self.state, caller, text)
        else:
            segment, text = "history", message.history_text
            prompt_ids = await history_prefix(resolver, self.state, caller, text)
        self.warm(prompt_ids, warmed(segment, text, message.request_id), message.request_id)

    def warm(self, prompt_ids: Sequence[int], frame: str | None, request_id: str | None) -> None:
        """Compute a prompt in the background.

        Args:
            prompt_ids: the prompt.
            frame: sent afterwards, or the error instead; None sends nothing.
            request_id: echoed in an error frame; None where the message had none.
        """
        self.warm_ups.start(self._caller(), self.state.slug, prompt_ids, Answer(frame, request_id), self.name)

    @property
    def name(self) -> str:
        """The session as log lines name it."""
        return f"key={self._caller().prefix} conn={self._connection} session={self.state.log_name}"

    def _on_turn_end(self, result: TurnResult) -> None:
        """Record and account one ended turn."""
        self._on_end()
        caller, state = self._caller(), self.state
        account(self._context, caller, result, self.budget.take(), session_name=self.name)
        conversation, chosen = state.conversation, state.chosen
        trimmed = conversation is not None and conversation.append(result)
        self._context.kept.copy(caller, state)
        if conversation is not None and trimmed and not self.runner.closed and chosen is not None:
            persona = self._context.resolver.resolve(chosen, caller)
            self.warm_ups.refresh(conversation.prefixes(persona), self.name)


async def _to_nobody(_frame: str) -> None:
    """Drop a frame: the turn can tell its frames again."""

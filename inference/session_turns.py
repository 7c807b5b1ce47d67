"""The turns of one session: plan and start a turn, account its end, keep its frames."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from accounts.callers import Caller
from inference.accounting import account
from inference.prompting.conversation import Conversation
from inference.prompting.persona import ResolvedPersona
from inference.protocol.frames import TurnFrames
from inference.serving_context import ServingContext
from inference.session_state import SessionState
from inference.turn import FrameSender, Turn
from inference.turn_admission import DeployedEngines
from inference.turn_budget import TurnBudget
from inference.turn_planner import TurnPlanner
from inference.turn_result import TurnResult
from inference.turn_runner import TurnRunner
from inference.warm_ups import Answer, WarmUps

logger = logging.getLogger("yap.session")


class SessionTurns:
    """Plans, starts and accounts the turns of one session, one at a time. All calls belong to the serving loop.

    Attributes:
        count: turns that were begun.
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
        self._state = state
        self._connection = connection
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
        self.count += 1
        caller, policy = self._caller(), self._context.policy
        plan = self._planner.plan(
            self.count,
            request_id,
            text or None,
            engines=engines,
            persona=persona,
            conversation=conversation,
            sampling=self._state.sampling,
            max_out=min(caller.limits.max_out or policy.max_out, policy.max_out),
        )
        frames, turn = TurnFrames(plan.turn, plan.request_id), None
        try:
            await self.budget.reserve(caller, plan)
            turn = self.runner.start(plan, frames, None if ack is None else partial(ack, frames))
        finally:
            if turn is None:
                self.budget.settle_unused()
                conversation.keep_pending_for_later()
        return turn

    def warm(self, prompt_ids: Sequence[int], frame: str | None, request_id: str | None) -> None:
        """Compute a prompt in the background.

        Args:
            prompt_ids: the prompt.
            frame: sent afterwards, or the error instead; None sends nothing.
            request_id: echoed in an error frame; None where the message had none.
        """
        self.warm_ups.start(self._caller(), self._state.slug, prompt_ids, Answer(frame, request_id), self.name)

    @property
    def name(self) -> str:
        """The session as log lines name it."""
        return f"key={self._caller().prefix} conn={self._connection} session={self._state.log_name}"

    def _on_turn_end(self, result: TurnResult) -> None:
        """Record and account one ended turn."""
        self._on_end()
        caller, state = self._caller(), self._state
        account(self._context, caller, result, self.budget.take(), session_name=self.name)
        conversation, chosen = state.conversation, state.chosen
        if conversation is not None and conversation.append(result) and not self.runner.closed and chosen is not None:
            persona = self._context.resolver.resolve(chosen, caller)
            self.warm_ups.refresh(conversation.prefixes(persona), self.name)

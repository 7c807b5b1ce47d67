"""The token reservation of one session's running turn.

A turn reserves an upper bound of its tokens before it starts and settles for what it used when it has ended. So a
budget is overshot by at most one turn, however many connections a key has.
"""

from __future__ import annotations

from accounts.callers import Caller
from accounts.token_budget import Reservation
from inference.serving_context import ServingContext
from inference.turn_admission import budget_exhausted, check_admission
from inference.turn_plan import TurnPlan


class TurnBudget:
    """At most one reservation: a session runs one turn at a time.

    Args:
        context: the process's budgets.
    """

    def __init__(self, context: ServingContext) -> None:
        self._context = context
        self._reservation: Reservation | None = None
        self._tokens = 0

    async def check(self, caller: Caller) -> None:
        """Check that a turn or a warm-up may be admitted. The running turn's own reservation does not count: a
        barge-in ends that turn.

        Raises:
            ProtocolError: ``server_draining`` or ``token_budget_exhausted``.
        """
        await check_admission(self._context, caller, self._tokens)

    async def reserve(self, caller: Caller, plan: TurnPlan) -> None:
        """Reserve the tokens of a planned turn. The turn before has been settled.

        Raises:
            ProtocolError: ``token_budget_exhausted``: turns of other connections hold the rest of the budget.
        """
        tokens = max_tokens(plan, self._context.policy.turn.tool.max_out)
        reservation = await self._context.budget.reserve(caller, tokens)
        if reservation is None:
            raise budget_exhausted(self._context)
        self._reservation, self._tokens = reservation, tokens

    @property
    def reserved(self) -> bool:
        """Whether tokens are reserved now."""
        return self._reservation is not None

    def settle_unused(self) -> None:
        """Give the reservation back: the turn did not start."""
        if (reservation := self.take()) is not None:
            reservation.settle(0)

    def take(self) -> Reservation | None:
        """Return the reservation for settling, and forget it; None where there is none."""
        reservation, self._reservation, self._tokens = self._reservation, None, 0
        return reservation


def max_tokens(plan: TurnPlan, tool_max_out: int) -> int:
    """Return an upper bound of a turn's tokens: after a tool decision of yes, the reply is computed twice."""
    tokens = 0
    if plan.tool is not None and plan.tool.request is not None:
        tokens += len(plan.tool.request.prompt_ids) + tool_max_out
    if plan.chat is not None:
        reply = len(plan.chat.request.prompt_ids) + plan.chat.reply.max_tokens
        tokens += reply * (2 if plan.tool is not None else 1)
    return tokens

"""What is written down of a turn that has ended: a line in the log, an event in the ledger, tokens off the budget."""

from __future__ import annotations

import logging
from typing import Literal

from accounts.callers import Caller
from accounts.usage import TurnUsage
from inference.serving_context import ServingContext
from inference.turn import Turn

logger = logging.getLogger("yap.turn")


def account(serving: ServingContext, caller: Caller, turn: Turn, *, name: str, persona: str, stopped_by: str) -> None:
    """Once per turn. ``name`` is how the log calls the session, ``stopped_by`` why a cancelled turn was cancelled."""
    usage, cancelled = turn.usage(), turn.ended_by == "cancelled"
    tool: Literal["yes", "no"] | None = None if turn.tool is None else "yes" if turn.tool else "no"
    used = TurnUsage(
        key_id=caller.key_id,
        key_prefix=caller.prefix,
        persona=persona,
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=usage["cached_tokens"],
        completion_tokens=usage["completion_tokens"],
        tool_prompt_tokens=usage["tool_prompt_tokens"],
        tool_completion_tokens=usage["tool_completion_tokens"],
        ttft_ms=turn.ttft_ms,
        tool=tool,
        cancelled=cancelled,
        barge_in=cancelled and stopped_by == "barge-in",
        error_code=turn.error_code,
        suppressed=usage["suppressed"],
    )
    serving.ledger.record(used)
    serving.budget.charge(caller, used.total_tokens)
    ended = stopped_by if cancelled else turn.error_code or turn.ended_by
    serving.metrics.turn(turn, ended)
    logger.info(
        "turn %s turn=%d persona=%s tool=%s tool_ms=%s ttft_ms=%s total_ms=%s tokens=%d cached=%d out=%d "
        "suppressed=%d ended=%s%s",
        name,
        turn.plan.turn,
        persona or "-",
        tool or "-",
        turn.tool_ms,
        turn.ttft_ms,
        usage["total_ms"],
        usage["prompt_tokens"],
        usage["cached_tokens"],
        usage["completion_tokens"],
        usage["suppressed"],
        ended,
        f" user={turn.plan.utterance!r} reply={turn.delivered()!r}" if serving.policy.log_text else "",
    )

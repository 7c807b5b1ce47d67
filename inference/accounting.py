"""Accounting of an ended turn: one line in the log, one event in the usage ledger, tokens off the key's budget."""

from __future__ import annotations

import logging
from typing import Literal

from accounts.callers import Caller
from accounts.token_budget import Reservation
from accounts.usage import TurnUsage
from inference.serving_context import ServingContext
from inference.turn_result import EndReason, StopReason, TurnResult

logger = logging.getLogger("yap.turn")


def account(
    context: ServingContext,
    caller: Caller,
    result: TurnResult,
    reservation: Reservation | None = None,
    *,
    session_name: str,
) -> None:
    """Record one ended turn. Call this once per turn.

    Args:
        context: the process's ledger, budget and metrics.
        caller: the key that pays.
        result: the ended turn.
        reservation: settled for the turn's tokens; None charges the budget without one.
        session_name: the session as log lines name it.
    """
    usage, cancelled = result.usage, result.ended_by is EndReason.CANCELLED
    tool: Literal["yes", "no"] | None = None if result.tool is None else "yes" if result.tool else "no"
    used = TurnUsage(
        key_id=caller.key_id,
        key_prefix=caller.prefix,
        persona=result.persona_slug,
        prompt_tokens=usage.prompt_tokens + usage.discarded_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens + usage.reasoning_tokens,
        tool_prompt_tokens=usage.tool_prompt_tokens,
        tool_completion_tokens=usage.tool_completion_tokens,
        ttft_ms=usage.ttft_ms,
        tool=tool,
        cancelled=cancelled,
        barge_in=result.stop_reason is StopReason.BARGE_IN,
        error_code=result.error_code,
        suppressed=usage.suppressed,
    )
    context.ledger.record(used)
    if reservation is None:
        context.budget.charge(caller, used.total_tokens)
    else:
        reservation.settle(used.total_tokens)
    ended = str(result.stop_reason if cancelled else result.error_code or result.ended_by)
    context.metrics.turn(result, ended)
    logger.info(
        "turn %s turn=%d persona=%s tool=%s tool_ms=%s ttft_ms=%s total_ms=%s tokens=%d cached=%d out=%d "
        "suppressed=%d ended=%s%s",
        session_name,
        result.turn,
        result.persona_slug or "-",
        tool or "-",
        usage.tool_ms,
        usage.ttft_ms,
        usage.total_ms,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        usage.suppressed,
        ended,
        f" user={result.utterance.text!r} reply={result.delivered!r}" if context.policy.log_text else "",
    )


def account_warm_up(
    context: ServingContext, caller: Caller, persona_slug: str, prompt_tokens: int, reservation: Reservation
) -> None:
    """Charge a warm-up: its prompt counts as usage and against the key's budget, without counting as a turn."""
    used = TurnUsage(caller.key_id, caller.prefix, persona_slug, prompt_tokens=prompt_tokens)
    context.ledger.record_warm_up(used)
    reservation.settle(used.total_tokens)


def account_refusal(context: ServingContext, caller: Caller, code: str, persona_slug: str) -> None:
    """Count a refused message, in the metrics and in the key's usage."""
    context.metrics.refused(code)
    context.ledger.record_error(caller.prefix, code, persona_slug)

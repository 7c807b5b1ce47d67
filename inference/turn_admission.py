"""Admission of a turn or a warm-up: whether the key may use the engines now, and which engines there are."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.callers import Caller
from inference.engines.base import Engine, EngineDead, EngineRole
from inference.protocol.errors import ErrorCode, ProtocolError
from inference.serving_context import RETRY_IN_S, ServingContext


async def check_admission(context: ServingContext, caller: Caller, own_tokens: int = 0) -> None:
    """Check that a key may use the engines now.

    Args:
        context: the process's budgets.
        caller: the key.
        own_tokens: tokens that the asking session has reserved itself and gives back before its next turn.

    Raises:
        ProtocolError: ``server_draining`` or ``token_budget_exhausted``, with ``retry_in`` seconds.
    """
    if context.draining:
        raise ProtocolError(ErrorCode.SERVER_DRAINING, "the server is stopping", retry_in=RETRY_IN_S)
    left = await context.budget.remaining(caller)
    if left is not None and left + own_tokens <= 0:
        raise budget_exhausted(context)


def budget_exhausted(context: ServingContext) -> ProtocolError:
    """Return the error of a key whose tokens for today are used or reserved."""
    return ProtocolError(
        ErrorCode.TOKEN_BUDGET_EXHAUSTED,
        "this key's tokens for today are used up",
        retry_in=context.budget.retry_in(),
    )


def require_chat_engine(context: ServingContext) -> Engine:
    """Return the chat engine.

    Raises:
        ProtocolError: ``chat_not_deployed``.
        EngineDead: the engine is being replaced.
    """
    if not context.engines.deployed(EngineRole.CHAT):
        raise ProtocolError(ErrorCode.CHAT_NOT_DEPLOYED, "this server runs no chat engine")
    return context.engines.engine(EngineRole.CHAT)


@dataclass(frozen=True, slots=True)
class DeployedEngines:
    """The engines of one turn.

    Args:
        chat: None where no chat engine is deployed.
        tool: None where no tool engine is deployed, or where it is being replaced beside a working chat engine.
        asks_tool: whether this turn may have a tool decision. Without a ``tool`` engine the classifier makes it; where
            there is none, the decision is no, or left out where no tool engine is deployed at all.
    """

    chat: Engine | None
    tool: Engine | None
    asks_tool: bool


def engines_for_start(context: ServingContext) -> DeployedEngines:
    """Return the engines of a ``start``.

    Raises:
        EngineDead: the chat engine is being replaced, or the tool engine of a server without a chat engine.
    """
    service = context.engines
    chat = service.engine(EngineRole.CHAT) if service.deployed(EngineRole.CHAT) else None
    if not service.deployed(EngineRole.TOOL):
        return DeployedEngines(chat, None, asks_tool=True)
    try:
        return DeployedEngines(chat, service.engine(EngineRole.TOOL), asks_tool=True)
    except EngineDead:
        if chat is None:
            raise
        return DeployedEngines(chat, None, asks_tool=True)

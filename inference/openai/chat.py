"""``POST /v1/chat/completions``, streamed and not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accounts.callers import Caller
from inference.openai.chat_frames import ChatStream, chat_completion
from inference.openai.context import OpenAIContext
from inference.openai.requests import decode_chat
from inference.openai.sse import Exchange
from inference.openai.text_answer import answer_text


async def chat_completions(
    context: OpenAIContext, exchange: Exchange, caller: Caller, fields: Mapping[str, Any]
) -> None:
    """Answer one chat completion.

    Args:
        context: the shared parts of the surface.
        exchange: the HTTP exchange.
        caller: the key.
        fields: the body.

    Raises:
        OpenAIError: the request cannot be served.
        ProtocolError: the same, as a domain error.
        EngineDead: the chat engine is being replaced.
    """
    await context.admit(caller)
    model = context.models.choose(fields.get("model"), caller)
    request = decode_chat(fields, context.serving.sampling)
    stream = ChatStream(model.id, include_usage=request.include_usage) if request.stream else None
    await answer_text(context, exchange, caller, model, request.ask, stream, chat_completion)

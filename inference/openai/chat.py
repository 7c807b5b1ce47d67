"""``POST /v1/chat/completions``, streamed and not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accounts.callers import Caller
from inference.openai.chat_frames import ChatStream, GatheredReply, chat_completion
from inference.openai.context import OpenAIContext
from inference.openai.generation import opened_generation
from inference.openai.requests import decode_chat
from inference.openai.sse import Exchange


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
    async with opened_generation(context, caller, exchange.send_event) as generation:
        await generation.prepare(model, request.ask)
        await generation.reserve()
        if not request.stream:
            reply = GatheredReply()
            await generation.run(reply)
            body = chat_completion(reply, model.id)
        else:
            await exchange.open_stream()
            await generation.run(ChatStream(model.id, include_usage=request.include_usage))
    # The slot is free before the body ends: the next request of the client may come at once.
    if request.stream:
        await exchange.close_stream()
    else:
        await exchange.answer(200, body)

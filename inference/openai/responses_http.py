"""``POST /v1/responses``, as server-sent events and as one object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accounts.callers import Caller
from inference.openai.context import OpenAIContext
from inference.openai.responses_frames import SSE_EVENTS
from inference.openai.responses_requests import decode_responses
from inference.openai.responses_service import ActiveResponse
from inference.openai.sse import Exchange


async def create_response(
    context: OpenAIContext, exchange: Exchange, caller: Caller, fields: Mapping[str, Any]
) -> None:
    """Answer one request.

    Args:
        context: the shared parts of the surface.
        exchange: the HTTP exchange.
        caller: the key.
        fields: the body.

    Raises:
        OpenAIError: the request cannot be served, or failed before its answer had begun.
        ProtocolError: the same, as a domain error.
        EngineDead: the chat engine is being replaced.
    """
    request = decode_responses(fields)

    async def gather(events: str) -> None:
        """Send nothing: the frames keep the response."""

    response = ActiveResponse(context, request, caller, SSE_EVENTS, exchange.send_event if request.stream else gather)
    await response.run()
    # The slot is free before the client sees the end: its next request may come at once.
    if request.stream:
        await exchange.close_stream()
        return
    frames = response.frames
    assert frames is not None
    if frames.failure is not None:
        raise frames.failure
    await exchange.answer(200, frames.response.encode())

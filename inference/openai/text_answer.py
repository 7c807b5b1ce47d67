"""The answer of the endpoints that return one text: generate, and send the reply as events or as one object."""

from __future__ import annotations

from collections.abc import Callable

from accounts.callers import Caller
from inference.openai.chat_frames import EventStream, GatheredReply
from inference.openai.context import OpenAIContext
from inference.openai.generation import opened_generation
from inference.openai.models import Model
from inference.openai.requests import Ask
from inference.openai.sse import Exchange


async def answer_text(
    context: OpenAIContext,
    exchange: Exchange,
    caller: Caller,
    model: Model,
    ask: Ask,
    stream: EventStream | None,
    whole: Callable[[GatheredReply, str], bytes],
) -> None:
    """Generate one reply and answer the exchange.

    Args:
        context: the shared parts of the surface.
        exchange: the HTTP exchange.
        caller: the key, which was admitted.
        model: who answers.
        ask: the request.
        stream: encodes the events of a stream; None for one object.
        whole: returns the body of a reply that is not streamed; takes the reply and the model's id.

    Raises:
        OpenAIError: the request cannot be served.
        ProtocolError: the same, as a domain error.
        EngineDead: the chat engine is being replaced.
    """
    async with opened_generation(context, caller, exchange.send_event) as generation:
        await generation.prepare(model, ask)
        await generation.reserve()
        if stream is None:
            reply = GatheredReply()
            await generation.run(reply)
            body = whole(reply, model.id)
        else:
            exchange.begin_stream()
            await generation.run(stream)
    # The slot is free before the last events leave: the next request of the client may come at once.
    if stream is None:
        await exchange.answer(200, body)
    else:
        await exchange.close_stream(stream.ending)

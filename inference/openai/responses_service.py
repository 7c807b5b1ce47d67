"""One response of the Responses API, the same over HTTP and over a WebSocket: decode, continue, generate, store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import uuid4

from accounts.callers import Caller
from inference.openai.context import OpenAIContext
from inference.openai.errors import invalid
from inference.openai.generation import Generation, opened_generation
from inference.openai.models import Model
from inference.openai.requests import Ask
from inference.openai.responses_echo import echoed_choice, echoed_format, echoed_metadata, echoed_tools
from inference.openai.responses_frames import EventForm, ResponseFrames, ResponseHead
from inference.openai.responses_requests import Item, ResponsesRequest
from inference.openai.responses_store import ResponseStore, StoredResponse, owner_of
from inference.turn_result import StopReason

Send = Callable[[str], Awaitable[None]]


class ActiveResponse:
    """One response. Call :meth:`run` once.

    Args:
        context: the shared parts of the surface.
        request: the decoded request.
        caller: the key.
        form: how events are written.
        send: sends events.
        model: the model of a request that names none; None where the connection named none.
        own: the connection's own memory; None over HTTP.

    Attributes:
        response_id: the response's id.
        frames: its events and its last state; None before the request was accepted.
    """

    def __init__(
        self,
        context: OpenAIContext,
        request: ResponsesRequest,
        caller: Caller,
        form: EventForm,
        send: Send,
        *,
        model: str | None = None,
        own: ResponseStore | None = None,
    ) -> None:
        self.response_id = f"resp_{uuid4().hex}"
        self.frames: ResponseFrames | None = None
        self._context = context
        self._request = request
        self._caller = caller
        self._form = form
        self._send_events = send
        self._model = model
        self._own = own
        self._generation: Generation | None = None
        self._items: tuple[Item, ...] = ()
        self._stopped: StopReason | None = None
        self._stored = False

    async def run(self) -> None:
        """Run the response to its last event.

        Raises:
            OpenAIError: the request was refused; nothing was sent.
            ProtocolError: the same, from the domain.
            EngineDead: the chat engine is being replaced; nothing was sent.
        """
        context, request, caller = self._context, self._request, self._caller
        await context.admit(caller)
        model = context.models.choose(request.body.get("model") or self._model, caller)
        self._items = await self._conversation()
        ask = request.ask(self._items, context.serving.sampling)
        frames = self.frames = ResponseFrames(self._head(model, ask), self._form)
        async with opened_generation(
            context, caller, self._send, within_connection=self._own is not None
        ) as generation:
            await generation.prepare(model, ask)
            if not request.generate:
                await self._warm(generation, frames)
                return
            await generation.reserve()
            self._generation = generation
            if self._stopped is not None:
                await self._send(frames.ack() + frames.done(cancelled=True))
                return
            await generation.run(frames, frames.ack)
            if frames.ended is None:  # ended by a revocation or a drain before its turn began
                await self._send(frames.done(cancelled=frames.failure is None))

    async def stop(self, reason: StopReason) -> None:
        """End the response; its last event says so. A response that has not begun ends as soon as it has."""
        self._stopped = reason
        if self._generation is not None:
            await self._generation.stop(reason)

    async def _conversation(self) -> tuple[Item, ...]:
        """Return the whole conversation of the request. Only an id that this process does not know is asked for
        elsewhere.

        Raises:
            OpenAIError: ``previous_response_not_found``.
        """
        name = self._request.previous_response_id
        if name is None:
            return self._request.items
        owner, own, context = owner_of(self._caller), self._own, self._context
        stored = (own.get(owner, name) if own is not None else None) or context.responses.get(owner, name)
        if stored is None and context.copies is not None:
            stored = await context.copies.get(self._caller, name)
        if stored is None:
            message = f"the response {name[:80]!r} is not known to this key, or no longer"
            raise invalid(message, "previous_response_id", "previous_response_not_found")
        return stored.continued(self._request.items)

    async def _warm(self, generation: Generation, frames: ResponseFrames) -> None:
        await self._send(frames.ack())
        tokens = await generation.warm()
        await self._send(frames.done(_warm_usage(tokens)))

    async def _send(self, events: str) -> None:
        """Send events. A response that has ended is stored first: the client may continue it at once."""
        if self.frames is not None and self.frames.ended is not None and not self._stored:
            self._stored = True
            self._store(self.frames)
        await self._send_events(events)

    def _store(self, frames: ResponseFrames) -> None:
        if frames.ended == "failed":
            return
        owner, context = owner_of(self._caller), self._context
        response = StoredResponse(self._items, frames.output_items())
        if self._request.store:
            response = context.responses.put(owner, self.response_id, response)
            if context.copies is not None:
                context.copies.put(self._caller, self.response_id, response)
        elif self._own is not None:
            self._own.put(owner, self.response_id, response)

    def _head(self, model: Model, ask: Ask) -> ResponseHead:
        request, serving = self._request, self._context.serving
        limit = ask.sampling.max_tokens
        most = min(serving.policy.max_out, self._caller.limits.max_out or serving.policy.max_out)
        return ResponseHead(
            model=model.id,
            response_id=self.response_id,
            previous_response_id=request.previous_response_id,
            tools=echoed_tools(request.body),
            tool_choice=echoed_choice(request.body),
            max_output_tokens=limit,
            own_limit=limit is not None and limit < most,
            temperature=ask.sampling.overrides.get("temperature"),
            top_p=ask.sampling.overrides.get("top_p"),
            text_format=echoed_format(request.body),
            metadata=echoed_metadata(request.body),
            store=request.store,
            stream_id=request.stream_id,
        )


def _warm_usage(tokens: int) -> Mapping[str, Any]:
    return {"prompt_tokens": tokens, "cached_tokens": 0, "completion_tokens": 0}

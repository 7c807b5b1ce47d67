"""``POST /v1/completions`` for text-completion clients.

Such a client writes the whole prompt, the template's control tokens included. The bare chat model continues this text;
the key may bring its own prompt there, and with it the template. A stored persona takes the prompt as the user's
message, so that its own prompt and its template stay whole.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from accounts.callers import Caller
from inference.engines.sampling import SamplingRules
from inference.openai.chat_frames import DONE, GatheredReply, error_of, event_head, finish_reason, usage_of
from inference.openai.context import OpenAIContext
from inference.openai.errors import invalid
from inference.openai.generation import opened_generation
from inference.openai.messages import Prompt
from inference.openai.requests import Ask
from inference.openai.sampling import read_sampling
from inference.openai.sse import Exchange
from inference.protocol.errors import ErrorCode


class CompletionStream:
    """The events of one streamed completion (``inference.turn_frames.FramesOfTurn``).

    Args:
        model: echoed in each chunk.
        include_usage: send a last chunk with the usage.
    """

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._head = event_head(f"cmpl-{uuid.uuid4().hex}", "text_completion", model)
        self._text_head = self._head + '"choices":[{"index":0,"logprobs":null,"finish_reason":null,"text":'
        self._began = False
        self._failed = False

    def token(self, text: str) -> str:
        """Return a chunk with text."""
        self._began = True
        return f"{self._text_head}{orjson.dumps(text).decode()}}}]}}\n\n"

    def toolcall(self, calls: list[dict[str, Any]], score: float | None = None) -> str:
        """Return nothing: a completion has no tools."""
        return ""

    def final(self, text: str) -> str:
        """Return nothing: the end comes with the usage."""
        return ""

    def error(self, code: str, message: str, **details: Any) -> str:
        """Return the error; nothing for a reply that was cut by the time limit, which ends with ``length``."""
        if code == ErrorCode.GENERATION_TIMEOUT and self._began:
            return ""
        self._failed = True
        return f"data: {error_of(code, message, details).body().decode()}\n\n"

    def done(self, usage: Mapping[str, Any] | None = None, *, cancelled: bool = False) -> str:
        """Return the last chunks; nothing after an error or a cancellation."""
        if self._failed or usage is None:
            return ""
        choices = orjson.dumps([_choice("", finish_reason(usage))]).decode()
        frame = f'{self._head}"choices":{choices}}}\n\n'
        if self._include_usage:
            frame += f'{self._head}"choices":[],"usage":{orjson.dumps(usage_of(usage)).decode()}}}\n\n'
        return frame + DONE


def completion(reply: GatheredReply, model: str) -> bytes:
    """Return the body of a completion that is not streamed.

    Args:
        reply: the whole reply.
        model: echoed.

    Raises:
        OpenAIError: the turn failed.
    """
    usage = reply.finished()
    return orjson.dumps({
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [_choice(reply.text, finish_reason(usage))],
        "usage": usage_of(usage),
    })  # fmt: skip


def _choice(text: str, finish: str) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}


def decode_completion(fields: Mapping[str, Any], rules: SamplingRules, *, raw: bool) -> Ask:
    """Decode the body of a completion.

    Args:
        fields: the body.
        rules: the server's sampling ranges.
        raw: whether the prompt is the whole text that the model continues.

    Raises:
        OpenAIError: the prompt is absent or no single text.
    """
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if prompt is None:
        raise invalid("prompt is required", "prompt", "missing_required_parameter")
    if not isinstance(prompt, str) or not prompt:
        raise invalid("prompt must be one text", "prompt")
    return Ask(Prompt(None, (), prompt), read_sampling(fields, rules), raw=raw)


async def completions(context: OpenAIContext, exchange: Exchange, caller: Caller, fields: Mapping[str, Any]) -> None:
    """Answer one completion.

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
    ask = decode_completion(fields, context.serving.sampling, raw=model.persona is None)
    options = fields.get("stream_options")
    async with opened_generation(context, caller, exchange.send_event) as generation:
        await generation.prepare(model, ask)
        await generation.reserve()
        if fields.get("stream") is not True:
            reply = GatheredReply()
            await generation.run(reply)
            body = completion(reply, model.id)
        else:
            await exchange.open_stream()
            usage = isinstance(options, dict) and options.get("include_usage") is True
            await generation.run(CompletionStream(model.id, include_usage=usage))
    if exchange.started:
        await exchange.close_stream()
    else:
        await exchange.answer(200, body)

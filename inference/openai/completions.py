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
from inference.openai.chat_frames import EventStream, GatheredReply, finish_reason, usage_of
from inference.openai.context import OpenAIContext
from inference.openai.errors import invalid
from inference.openai.messages import Prompt
from inference.openai.requests import Ask
from inference.openai.sampling import read_sampling
from inference.openai.sse import Exchange
from inference.openai.text_answer import answer_text
from inference.protocol.decoder import user_identity_of


class CompletionStream(EventStream):
    """The events of one streamed completion.

    Args:
        model: echoed in each chunk.
        include_usage: send a last chunk with the usage.
    """

    def __init__(self, model: str, *, include_usage: bool) -> None:
        super().__init__("cmpl", "text_completion", model, include_usage=include_usage)
        self._text_head = self._head + '"choices":[{"index":0,"logprobs":null,"finish_reason":null,"text":'

    def token(self, text: str) -> str:
        """Return a chunk with text."""
        self._began = True
        return f"{self._text_head}{orjson.dumps(text).decode()}}}]}}\n\n"

    def _last_chunk(self, finish: str) -> str:
        return self._chunk(_choice("", finish))


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
        ProtocolError: ``invalid_user_identity``.
    """
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if prompt is None:
        raise invalid("prompt is required", "prompt", "missing_required_parameter")
    if not isinstance(prompt, str) or not prompt:
        raise invalid("prompt must be one text", "prompt")
    name = user_identity_of(fields.get("user_identity"))
    return Ask(Prompt(None, (), prompt), read_sampling(fields, rules), raw=raw, user_name=name)


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
    # SillyTavern's generic and TabbyAPI types send no model unless its user has chosen one.
    name = fields.get("model") or None
    model = (None if name else context.models.unnamed(caller)) or context.models.choose(name, caller)
    ask = decode_completion(fields, context.serving.sampling, raw=model.persona is None)
    options = fields.get("stream_options")
    usage = isinstance(options, dict) and options.get("include_usage") is True
    stream = CompletionStream(model.id, include_usage=usage) if fields.get("stream") is True else None
    await answer_text(context, exchange, caller, model, ask, stream, completion)

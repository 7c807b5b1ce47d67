"""Requests for chat completions as plain data: null counts as absent, unknown fields are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference.engines.sampling import SamplingRules
from inference.openai.messages import Prompt, decode_messages, prompt_of
from inference.openai.request_tools import RequestTools, decode_tools, forbids_calls, json_schema_of
from inference.openai.sampling import RequestSampling, read_sampling
from inference.protocol.decoder import user_identity_of


@dataclass(frozen=True, slots=True)
class Ask:
    """What one response is asked for, independent of the endpoint.

    Args:
        prompt: system text, history and last message.
        sampling: sampling, limits, stops and further banned phrases.
        tools: the request's tools; None where it has none, or where the key has no right to them.
        may_call: whether the answer may be a tool call. The answer to a tool's result is a turn of chat.
        persona_tools: whether a request without tools has a decision about the persona's own.
        json_schema: JSON text of the schema that the reply must follow; None for free text.
        raw: ``prompt.user`` is the whole prompt, template included.
        user_name: the user's name for ``{{user}}``; None where the client gave none.
    """

    prompt: Prompt
    sampling: RequestSampling
    tools: RequestTools | None = None
    may_call: bool = False
    persona_tools: bool = False
    json_schema: str | None = None
    raw: bool = False
    user_name: str | None = None

    @property
    def has_tools(self) -> bool:
        """Whether the conversation has tools, also where this response may not call them."""
        return self.tools is not None or self.persona_tools

    @property
    def decides(self) -> bool:
        """Whether this response has a tool decision. A continued reply has none."""
        return self.has_tools and self.may_call and self.prompt.user is not None and self.prompt.prefill is None


@dataclass(frozen=True, slots=True)
class ChatCompletionRequest:
    """A request to ``/v1/chat/completions``, without its model."""

    ask: Ask
    stream: bool
    include_usage: bool


def decode_chat(fields: Mapping[str, Any], rules: SamplingRules) -> ChatCompletionRequest:
    """Decode the body of a chat completion.

    Args:
        fields: the body.
        rules: the server's sampling ranges.

    Raises:
        OpenAIError: a field that can never be used.
        ProtocolError: the same, of a field that ``/ws`` has too.
    """
    options = fields.get("stream_options")
    messages = decode_messages(fields.get("messages"))
    ask = Ask(
        prompt_of(messages),
        read_sampling(fields, rules),
        decode_tools(fields),
        may_call=not forbids_calls(fields) and messages[-1].role != "tool",
        json_schema=json_schema_of(fields.get("response_format")),
        user_name=user_identity_of(fields.get("user_identity")),
    )
    return ChatCompletionRequest(
        ask,
        stream=fields.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )

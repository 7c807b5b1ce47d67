"""Requests for chat completions as plain data: null counts as absent, unknown fields are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from inference.engines.sampling import SamplingRules
from inference.openai.messages import Prompt, decode_messages, prompt_of
from inference.openai.request_tools import RequestTools, decode_tools, json_schema_of
from inference.openai.sampling import RequestSampling, read_sampling


@dataclass(frozen=True, slots=True)
class Ask:
    """What one response is asked for, independent of the endpoint.

    Args:
        prompt: system text, history and last message.
        sampling: sampling, limits, stops and further banned phrases.
        tools: the request's tools; None where no tool decision is made.
        json_schema: JSON text of the schema that the reply must follow; None for free text.
        raw: ``prompt.user`` is the whole prompt, template included.
        user_name: the user's name for ``{{user}}``; None where the client gave none.
    """

    prompt: Prompt
    sampling: RequestSampling
    tools: RequestTools | None = None
    json_schema: str | None = None
    raw: bool = False
    user_name: str | None = None


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
    """
    options = fields.get("stream_options")
    messages, tools = decode_messages(fields.get("messages")), decode_tools(fields)
    if tools is not None and messages[-1].role == "tool":  # the answer to a tool's result is a turn of chat
        tools = replace(tools, asked=False, required=False)
    ask = Ask(
        prompt_of(messages),
        read_sampling(fields, rules),
        tools,
        json_schema_of(fields.get("response_format")),
    )
    return ChatCompletionRequest(
        ask,
        stream=fields.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )

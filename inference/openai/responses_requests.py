"""Requests to the Responses API as plain data: null counts as absent, unknown fields are ignored.

Input items become the messages of :mod:`inference.openai.messages`. They stay items until then, because a response that
continues another one needs the ids of its calls.

Source: OpenAI's API reference, "Create a model response"; ``openai.types.responses.ResponseInputItemParam``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference.engines.sampling import SamplingRules
from inference.openai.errors import invalid
from inference.openai.messages import SYSTEM_ROLES, Message, Prompt, prompt_of, text_of, tool_result
from inference.openai.request_tools import decode_tools, forbids_calls, json_schema_of
from inference.openai.requests import Ask
from inference.openai.sampling import read_sampling
from inference.prompting.history import ExchangeText
from inference.protocol.decoder import user_identity_of

MAX_ITEMS = 4_000
MAX_STREAM_ID_CHARS = 256
_UNSUPPORTED = {
    "conversation": "conversations are not kept here: continue a response by previous_response_id",
    "prompt": "stored prompts are not kept here: send instructions",
}
_NO_REFERENCES = "items are not kept here: send them whole, or continue a response by previous_response_id"


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a conversation.

    Args:
        role: ``system``, ``user`` or ``assistant`` of a message; ``call`` and ``result`` of a function.
        text: the message; of a call its arguments, of a result its output.
        call_id: of a call and its result.
        name: of the called function.
    """

    role: str
    text: str
    call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """One decoded request.

    Args:
        body: the request's object, for the fields that all endpoints read.
        items: the new input, without ``instructions`` and without what ``previous_response_id`` stands for.
        instructions: system text of this response alone; None where there is none.
        previous_response_id: the response that this one continues; None for a new conversation.
        store: keep the response for requests of other connections.
        stream: answer with events over HTTP. A WebSocket always does.
        generate: False: compute the prompt into the prefix cache and generate nothing.
        stream_id: echoed in every event; None where the client gave none.
    """

    body: Mapping[str, Any]
    items: tuple[Item, ...]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool = True
    stream: bool = False
    generate: bool = True
    stream_id: str | None = None

    def ask(self, items: Sequence[Item], rules: SamplingRules) -> Ask:
        """Return what the response is asked for.

        Args:
            items: the whole conversation: what was stored, then the new input.
            rules: the server's sampling ranges.

        Raises:
            OpenAIError: a field that can never be used.
            ProtocolError: the same, of a field that ``/ws`` has too.
        """
        body, text = self.body, self.body.get("text")
        form = text.get("format") if isinstance(text, dict) else None
        answers_result = bool(items) and items[-1].role == "result"
        return Ask(
            _prompt(self.instructions, items),
            read_sampling(body, rules),
            decode_tools(body),
            may_call=not forbids_calls(body) and not answers_result,
            json_schema=json_schema_of(form),
            user_name=user_identity_of(body.get("user_identity")),
        )


def decode_responses(body: Mapping[str, Any]) -> ResponsesRequest:
    """Decode the body of a request, or a ``response.create`` event.

    Raises:
        OpenAIError: 400, for a field that has the wrong type or that cannot be served.
    """
    for name, reason in _UNSUPPORTED.items():
        if body.get(name) is not None:
            raise invalid(reason, name, "unsupported_parameter")
    previous = _string(body, "previous_response_id")
    instructions = body.get("instructions")
    if isinstance(instructions, list):  # the form in which a response echoes them
        instructions = "\n\n".join(item.text for item in decode_items(instructions, "instructions"))
    elif instructions is not None and not isinstance(instructions, str):
        raise invalid("instructions must be a string", "instructions", "invalid_type")
    found = body.get("input")
    if found is None and previous is None and not instructions:
        raise invalid("input is required", "input", "missing_required_parameter")
    stream_id = _string(body, "stream_id")
    if stream_id is not None and len(stream_id) > MAX_STREAM_ID_CHARS:
        message = f"stream_id may have at most {MAX_STREAM_ID_CHARS} characters"
        raise invalid(message, "stream_id", "invalid_stream_id")
    cache = body.get("prompt_cache_options")
    prewarm = isinstance(cache, dict) and cache.get("prewarm") is True
    return ResponsesRequest(
        body=body,
        items=decode_items(found, "input"),
        instructions=instructions or None,
        previous_response_id=previous,
        store=body.get("store") is not False,
        stream=body.get("stream") is True,
        generate=body.get("generate") is not False and not prewarm,
        stream_id=stream_id,
    )


def decode_items(value: object, param: str) -> tuple[Item, ...]:
    """Decode input items: a string (one user message), a list, or None (no input).

    Args:
        value: the field's value.
        param: the field's name in errors.

    Raises:
        OpenAIError: 400, for an item of the wrong type.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return (Item("user", value),)
    if not isinstance(value, list):
        raise invalid(f"{param} must be a string or a list of items", param, "invalid_type")
    if len(value) > MAX_ITEMS:
        raise invalid(f"{param} may have at most {MAX_ITEMS} items", param, "array_above_max_length")
    decoded = (_item(item, f"{param}[{index}]") for index, item in enumerate(value))
    return tuple(item for item in decoded if item is not None)


def _item(item: object, param: str) -> Item | None:
    """Decode one item. Returns None for reasoning, and for calls of tools that run at OpenAI."""
    if not isinstance(item, dict):
        raise invalid("an item is an object", param, "invalid_type")
    match item.get("type") or "message":
        case "message":
            role = item.get("role")
            if role not in ("user", "assistant") and role not in SYSTEM_ROLES:
                raise invalid("role must be user, assistant, system or developer", f"{param}.role")
            text = text_of(item.get("content"), f"{param}.content")
            return Item("system" if role in SYSTEM_ROLES else str(role), text)
        case "function_call":
            arguments = item.get("arguments")
            text = arguments if isinstance(arguments, str) else "{}"
            return Item("call", text, _required(item, "call_id", param), _required(item, "name", param))
        case "function_call_output":
            return Item("result", text_of(item.get("output"), f"{param}.output"), _required(item, "call_id", param))
        case "item_reference":
            raise invalid(_NO_REFERENCES, param, "unsupported_parameter")
    return None


def messages_of(items: Iterable[Item]) -> list[Message]:
    """Return items as messages. A call says nothing by itself; its name stands beside its result."""
    names: dict[str, str] = {}
    messages: list[Message] = []
    for item in items:
        if item.role == "call":
            names[item.call_id] = item.name
        elif item.role == "result":
            messages.append(tool_result(names.get(item.call_id), item.text))
        else:
            messages.append(Message(item.role, item.text))
    return messages


def _prompt(instructions: str | None, items: Sequence[Item]) -> Prompt:
    """Arrange a conversation. A last message of the assistant is finished: the character speaks once more."""
    messages = messages_of(items)
    if instructions:
        messages.insert(0, Message("system", instructions))
    if not messages:
        return Prompt(None, (), None)
    prompt = prompt_of(messages)
    if prompt.prefill is None:
        return prompt
    return Prompt(prompt.system, (*prompt.exchanges, ExchangeText(prompt.user, prompt.prefill)), None)


def _string(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid(f"{name} must be a string", name, "invalid_type")
    return value or None


def _required(item: Mapping[str, Any], name: str, param: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value:
        raise invalid(f"{name} must be a string", f"{param}.{name}", "invalid_type")
    return value

"""The messages of a request as a prompt: system text, past exchanges, the user's last message, a reply to continue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference.openai.errors import OpenAIError, invalid
from inference.prompting.history import ExchangeText

MAX_MESSAGES = 4_000
SYSTEM_ROLES = frozenset({"system", "developer"})
TOOL_RESULT_PREFIX = "TOOL RESULT"
IMAGE_PLACEHOLDER = "[image]"
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_OTHER_PARTS = {"image_url": IMAGE_PLACEHOLDER, "input_image": IMAGE_PLACEHOLDER, "refusal": ""}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a request.

    Args:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        text: the text; empty for an assistant message that holds tool calls alone.
    """

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request's messages in the server's form.

    Args:
        system: the leading system text; None where there is none.
        exchanges: the finished exchanges, oldest first. The first may have no user text: the character spoke first.
        user: the user's last message; None where there is none, so that the character speaks first.
        prefill: the beginning of the reply, which the model continues; None for a reply of its own.
    """

    system: str | None
    exchanges: tuple[ExchangeText, ...]
    user: str | None
    prefill: str | None = None


def decode_messages(value: Any) -> tuple[Message, ...]:
    """Decode ``messages`` of a chat completion.

    Raises:
        OpenAIError: the value is absent, empty, too long or of another kind.
    """
    if value is None:
        raise invalid("messages is required", "messages", "missing_required_parameter")
    if not isinstance(value, list) or not value:
        raise invalid("messages must be a list with at least one message", "messages")
    if len(value) > MAX_MESSAGES:
        raise invalid(f"messages may have at most {MAX_MESSAGES} messages", "messages", "array_above_max_length")
    names: dict[str, str] = {}
    return tuple(_message(item, f"messages[{number}]", names) for number, item in enumerate(value))


def _message(item: Any, param: str, names: dict[str, str]) -> Message:
    if not isinstance(item, dict):
        raise invalid("a message is an object", param)
    role = item.get("role")
    text = text_of(item.get("content"), f"{param}.content")
    if role in SYSTEM_ROLES:
        return Message("system", text)
    if role in ("tool", "function"):
        return tool_result(names.get(str(item.get("tool_call_id")), "") or item.get("name"), text)
    if role == "assistant":
        for call in item.get("tool_calls") or ():
            if isinstance(call, dict) and isinstance(call.get("function"), dict):
                names[str(call.get("id"))] = str(call["function"].get("name") or "")
        return Message("assistant", text)
    if role == "user":
        return Message("user", text)
    raise invalid("role must be system, developer, user, assistant or tool", f"{param}.role")


def tool_result(name: Any, text: str) -> Message:
    """Return a tool's result as the user-side text that the character reads."""
    known = f" {name}" if isinstance(name, str) and name else ""
    return Message("tool", f"{TOOL_RESULT_PREFIX}{known}: {text}")


def text_of(content: Any, param: str) -> str:
    """Return the text of ``content``: a string, a list of parts, or null. An image becomes ``[image]``.

    Raises:
        OpenAIError: another kind of value.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid("content must be a string or a list of parts", param)
    return "\n".join(filter(None, (_part(part, param) for part in content)))


def _part(part: Any, param: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise invalid("a part of content is an object", param)
    kind = part.get("type")
    if kind in _TEXT_PARTS:
        text = part.get("text")
        if not isinstance(text, str):
            raise invalid("a text part needs text, a string", param)
        return text
    return _OTHER_PARTS.get(str(kind), f"[{kind}]" if isinstance(kind, str) and kind.isidentifier() else "")


def prompt_of(messages: Sequence[Message]) -> Prompt:
    """Arrange messages as exchanges.

    Leading system messages are the system text; later ones join the user's side. Messages of one side in a row are
    joined. A last assistant message is the beginning of the reply.

    Raises:
        OpenAIError: there is neither a message nor a system text.
    """
    if not messages:
        raise invalid("messages must hold at least one message", "messages")
    leading = 0
    while leading < len(messages) and messages[leading].role == "system":
        leading += 1
    system = "\n\n".join(filter(None, (message.text.strip() for message in messages[:leading]))) or None
    exchanges: list[ExchangeText] = []
    user: str | None = None
    reply: str | None = None
    for is_reply, text in _runs(messages[leading:]):
        if is_reply:
            reply = text
            continue
        if reply is not None:
            exchanges.append(ExchangeText(user, reply))
        user, reply = text, None
    return Prompt(system, tuple(exchanges), user or None, reply)


def _runs(messages: Iterable[Message]) -> list[tuple[bool, str]]:
    """Join messages of one side in a row. Returns (is the character's, text) without empty texts."""
    runs: list[tuple[bool, list[str]]] = []
    for message in messages:
        if not message.text.strip():
            continue
        is_reply = message.role == "assistant"
        if runs and runs[-1][0] == is_reply:
            runs[-1][1].append(message.text)
        else:
            runs.append((is_reply, [message.text]))
    return [(is_reply, "\n".join(texts)) for is_reply, texts in runs]


def require_object(fields: Any) -> Mapping[str, Any]:
    """Return the body of a request.

    Raises:
        OpenAIError: the body is not a JSON object.
    """
    if not isinstance(fields, dict):
        raise OpenAIError(400, "invalid_json", "the body must be a JSON object")
    return fields

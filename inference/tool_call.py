"""The tool engine's output to a decision, at its first telling token: ``[]`` is no, ``[{`` is yes.

The output is a JSON list of calls, held to it by structured output. Which names a call may have is read from the tool
prompt: where it spells ``"name": "…"`` only those names are possible, else any identifier.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import orjson

from inference.history import Line, parse_history_text

# The example lines at its end become turns of the tool engine's chat: small models decide far better by example.
DEFAULT_TOOL_PROMPT = """\
You watch a chat. If the last message asks to look at, see, read or check the screen, answer \
[{"name": "take_screenshot", "arguments": {}}]. Otherwise answer [].

User: Hello!
Assistant: []
User: How was your day?
Assistant: []
User: What is on my screen?
Assistant: [{"name": "take_screenshot", "arguments": {}}]
User: I like pizza.
Assistant: []
User: Look at my screen.
Assistant: [{"name": "take_screenshot", "arguments": {}}]
User: Tell me a joke.
Assistant: []
User: Can you see this?
Assistant: [{"name": "take_screenshot", "arguments": {}}]
User: Check this out.
Assistant: [{"name": "take_screenshot", "arguments": {}}]
User: My name is Anna.
Assistant: []
User: What is your favorite color?
Assistant: []
User: Read what it says on my desktop.
Assistant: [{"name": "take_screenshot", "arguments": {}}]
User: Take a look at this picture.
Assistant: [{"name": "take_screenshot", "arguments": {}}]
User: Hello, how are you?
Assistant: []
User: See what I have open here?
Assistant: [{"name": "take_screenshot", "arguments": {}}]"""

_NAME = re.compile(r'"name"\s*:\s*"([A-Za-z_][\w.-]{0,63})"')
_EXAMPLES = re.compile(r"^User:.*\nAssistant:[ \t]*\[", re.MULTILINE)
MAX_CALLS = 4


def split_examples(tool_prompt: str) -> tuple[str, tuple[Line, ...]]:
    """(instructions, examples): a tool prompt may end in examples, ``User: …`` and ``Assistant: [...]`` lines."""
    found = _EXAMPLES.search(tool_prompt)
    if found is None:
        return tool_prompt, ()
    return tool_prompt[: found.start()], parse_history_text(tool_prompt[found.start() :])


def decision(text: str) -> bool | None:
    """True or False as soon as ``text``, the output so far, settles it; None until then.

    Output that cannot become a list of calls is a no: nothing may be done that the model did not ask for.
    """
    text = text.lstrip()
    if not text or text == "[":
        return None
    if text[0] != "[":
        return False
    rest = text[1:].lstrip()
    return None if not rest else rest[0] == "{"


def parse_calls(text: str) -> list[dict[str, Any]]:
    """The calls of a finished output, each ``{"name": str, "arguments": object}``; empty where it is cut or
    malformed."""
    try:
        calls = orjson.loads(text.strip())
    except orjson.JSONDecodeError:
        return []
    if not isinstance(calls, list):
        return []
    for call in calls:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return []
        if not isinstance(call.setdefault("arguments", {}), dict):
            return []
    return calls


@lru_cache(maxsize=256)
def schema(tool_prompt: str) -> str:
    """The JSON schema, as text, that a decision under this prompt is held to."""
    names = sorted(set(_NAME.findall(tool_prompt)))
    name: dict[str, Any] = {"enum": names} if names else {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,63}$"}
    call = {
        "type": "object",
        "properties": {"name": name, "arguments": {"type": "object"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
    return orjson.dumps({"type": "array", "items": call, "maxItems": len(names) or MAX_CALLS}).decode()

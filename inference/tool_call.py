"""The tool engine's output to a decision, at its first telling token: ``[]`` is no, ``[{`` is yes.

The output is a JSON list of calls, held to it by structured output. Which names a call may have is read from the tool
prompt: where it spells ``"name": "…"`` only those names are possible, else any identifier.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import orjson

DEFAULT_TOOL_PROMPT = """\
You decide whether answering the last user message needs a look at the user's screen.
Answer with a JSON list and nothing else.
If the user asks you to look at, see, check or read something on the screen: [{"name": "take_screenshot",
"arguments": {}}]
If not: []

User: Can you see what is on my screen?
Answer: [{"name": "take_screenshot", "arguments": {}}]
User: How was your day?
Answer: []
User: Take a look at this.
Answer: [{"name": "take_screenshot", "arguments": {}}]
User: I like pizza.
Answer: []
User: What does this error on my screen say?
Answer: [{"name": "take_screenshot", "arguments": {}}]
User: Tell me a joke.
Answer: []"""

_NAME = re.compile(r'"name"\s*:\s*"([A-Za-z_][\w.-]{0,63})"')
MAX_CALLS = 4


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
    return orjson.dumps({"type": "array", "items": call, "maxItems": MAX_CALLS}).decode()

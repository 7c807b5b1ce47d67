"""Tool prompts: instructions, examples, and the JSON schema that the tool engine's output must follow."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import orjson

from inference.prompting.history import ExchangeText, parse_history_text

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


def split_examples(tool_prompt: str) -> tuple[str, tuple[ExchangeText, ...]]:
    """(instructions, examples): a tool prompt may end in examples, ``User: …`` and ``Assistant: [...]`` lines."""
    found = _EXAMPLES.search(tool_prompt)
    if found is None:
        return tool_prompt, ()
    return tool_prompt[: found.start()], parse_history_text(tool_prompt[found.start() :])


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

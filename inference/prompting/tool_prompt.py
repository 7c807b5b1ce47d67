"""Tool prompts: instructions and examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from inference.prompting.history import ExchangeText, parse_history_text
from inference.prompting.tool_definitions import NO_ARGUMENTS
from personas.tool_snapshot import ToolSnapshot

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

_EXAMPLES = re.compile(r"^User:.*\nAssistant:[ \t]*\[", re.MULTILINE)
_LABEL = re.compile(r"[ \t]*(user|assistant):", re.IGNORECASE)


def split_examples(tool_prompt: str) -> tuple[str, tuple[ExchangeText, ...]]:
    """Split a tool prompt into its instructions and its examples, ``User: …`` and ``Assistant: [...]`` lines.

    Text behind the last example is an instruction: a reply ends where its JSON ends.
    """
    found = _EXAMPLES.search(tool_prompt)
    if found is None:
        return tool_prompt, ()
    lines = tool_prompt[found.start() :].splitlines()
    last = max(number for number, line in enumerate(lines) if _LABEL.match(line))
    end = last + 1
    while end < len(lines) and not _complete("\n".join(lines[last:end])):
        end += 1
    instructions = tool_prompt[: found.start()]
    if behind := "\n".join(lines[end:]).strip():
        instructions = f"{instructions.rstrip()}\n{behind}\n\n"
    return instructions, parse_history_text("\n".join(lines[:end]))


def prompt_of_tools(tools: Sequence[ToolSnapshot]) -> str:
    """Return the tool prompt for tools that operators defined."""
    cards = [
        {
            "name": tool.name,
            "description": tool.description,
            "parameters": orjson.loads(tool.parameters) if tool.parameters else NO_ARGUMENTS,
        }
        for tool in tools
    ]
    return (
        "You watch a chat and decide whether its last message asks for one of these tools:\n"
        f"{orjson.dumps(cards).decode()}\n"
        'If the message asks for a tool, answer with a JSON list of calls, [{"name": …, "arguments": {…}}]. '
        "Otherwise answer []."
    )


def prompt_of_arguments(name: str, description: str, arguments: Mapping[str, Any]) -> str:
    """Return the prompt of a model that writes the arguments of a call that is decided already."""
    card = {"name": name, "description": description, "parameters": arguments}
    return (
        "The last message of the chat asks for this tool:\n"
        f"{orjson.dumps(card).decode()}\n"
        "Write the call with the arguments that the message asks for, as a JSON list with one object that has name "
        "and arguments."
    )


def _complete(line: str) -> bool:
    """Whether an example's reply has all of its JSON; a user's line has no end of its own but its line's."""
    label = _LABEL.match(line)
    if label is None or label[1].lower() == "user":
        return True
    try:
        orjson.loads(line[label.end() :].strip())
    except orjson.JSONDecodeError:
        return False
    return True

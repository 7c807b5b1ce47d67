"""The chat prompt of a character card.

The parts of a card become one prompt, in this order: system prompt (or the default), description, personality,
scenario, example dialogue, post-history instructions. Macros such as ``{{char}}`` and ``{{user}}`` stay in the prompt;
every turn expands them (``personas.macros``), so that a renamed persona speaks under the new name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SYSTEM_PROMPT = "You are {{char}}, talking with {{user}}. Stay in character."  # the text of {{original}}
PROMPT_FIELDS = (
    "system_prompt",
    "description",
    "personality",
    "scenario",
    "mes_example",
    "post_history_instructions",
)
_ORIGINAL = re.compile(r"\{\{\s*original\s*\}\}", re.IGNORECASE)
# The mark between example dialogues. Blanks are matched at the start of a line only, so that the search stays linear.
_START_LINE = re.compile(r"^[ \t]*<START>[ \t]*\n?", re.IGNORECASE | re.MULTILINE)
_START_INSIDE = re.compile(r"<START>[ \t]*\n?", re.IGNORECASE)


class PromptTooLong(ValueError):
    """The composed prompt would have more characters than a persona may have. Raised before the text is built."""


def unix_lines(text: str) -> str:
    """Return the text with ``\\n`` in place of ``\\r\\n`` and lone ``\\r``."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def compose(data: Mapping[str, Any], max_chars: int) -> str:
    """Return the chat prompt of a card's ``data``, whose ``PROMPT_FIELDS`` are all text.

    Raises:
        PromptTooLong: The prompt would have more than ``max_chars`` characters.
    """
    system = data["system_prompt"]
    length = sum(len(data[key]) for key in PROMPT_FIELDS)
    length += len(SYSTEM_PROMPT) * sum(1 for _ in _ORIGINAL.finditer(system))
    if length > 2 * max_chars:  # what follows adds headings and can remove marks, comments and blanks
        raise PromptTooLong(f"the card's prompt has {length} characters; at most {max_chars} are allowed")
    parts = (
        _ORIGINAL.sub(lambda _: SYSTEM_PROMPT, system) if system.strip() else SYSTEM_PROMPT,
        data["description"],
        _headed("Personality: ", data["personality"]),
        _headed("Scenario: ", data["scenario"]),
        _headed("Example dialogue:\n", data["mes_example"]),
        _ORIGINAL.sub("", data["post_history_instructions"]),
    )
    texts = (_without_marks(part) for part in parts)
    prompt = "\n\n".join(text for text in texts if text)
    if len(prompt) > max_chars:
        raise PromptTooLong(f"the card's prompt has {len(prompt)} characters; at most {max_chars} are allowed")
    return prompt


def _headed(heading: str, text: str) -> str:
    body = _without_marks(text)
    return f"{heading}{body}" if body else ""


def _without_marks(text: str) -> str:
    return _START_INSIDE.sub("\n", _START_LINE.sub("", unix_lines(text))).strip()

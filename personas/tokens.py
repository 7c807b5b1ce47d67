"""Token counts of prompts, by the process that has the tokenizers. The composition root registers the counter."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from django.core.exceptions import ValidationError

from personas.macros import DEFAULT_USER_NAME, ExpansionTooLong, expand
from personas.models import MAX_PROMPT_CHARS


class TokenCounter(Protocol):
    """Counts tokens as the engines do. Limits are in tokens (``CHAT_PROMPT_MAX_TOKENS``, ``TOOL_PROMPT_MAX_TOKENS``,
    and the token biases that an engine takes)."""

    @property
    def chat_limit(self) -> int: ...
    @property
    def tool_limit(self) -> int: ...
    @property
    def biased_limit(self) -> int: ...
    def count_chat(self, text: str) -> int: ...
    def count_tool(self, text: str) -> int: ...
    def count_biased(self, texts: Sequence[str]) -> int:
        """Return the number of different tokens that a bias on these phrases applies to."""
        ...


_counter: TokenCounter | None = None


def use(counter: TokenCounter | None) -> None:
    """Register the counter of this process. None: no tokenizer is loaded here."""
    global _counter
    _counter = counter


def current() -> TokenCounter | None:
    """Return the registered counter, or None in a process without tokenizers."""
    return _counter


def expanded(prompt: str, char: str) -> str:
    """Return a prompt as a turn with an unnamed user would have it. Raises :class:`ExpansionTooLong`."""
    return expand(
        prompt, user=DEFAULT_USER_NAME, char=char, seed="", now=datetime.now().astimezone(), max_chars=MAX_PROMPT_CHARS
    )


def check_prompts(chat_prompt: str, tool_prompt: str, char: str) -> None:
    """Raise ``ValidationError`` by field for prompts over their limits. Without a counter, only characters count.

    Args:
        chat_prompt, tool_prompt: With macros. An empty tool prompt is within its limit.
        char: The text of ``{{char}}``.
    """
    counter = _counter
    errors: dict[str, str] = {}
    for field, prompt in (("chat_prompt", chat_prompt), ("tool_prompt", tool_prompt)):
        try:
            text = expanded(prompt, char)
        except ExpansionTooLong:
            errors[field] = f"More than {MAX_PROMPT_CHARS} characters when its macros are expanded."
            continue
        if counter is None or not text:
            continue
        is_chat = field == "chat_prompt"
        count = counter.count_chat(text) if is_chat else counter.count_tool(text)
        limit = counter.chat_limit if is_chat else counter.tool_limit
        if count > limit:
            errors[field] = f"{count} tokens; at most {limit} are allowed."
    if errors:
        raise ValidationError(errors)

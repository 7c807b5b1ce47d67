"""Token counts of prompts, by whoever has the tokenizers. The composition root registers the counter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from django.core.exceptions import ValidationError


class TokenCounter(Protocol):
    """Counts as the engines do. Limits are in tokens (``CHAT_PROMPT_MAX_TOKENS``, ``TOOL_PROMPT_MAX_TOKENS``, and the
    token biases that an engine takes)."""

    @property
    def chat_limit(self) -> int: ...
    @property
    def tool_limit(self) -> int: ...
    @property
    def biased_limit(self) -> int: ...
    def count_chat(self, text: str) -> int: ...
    def count_tool(self, text: str) -> int: ...
    def count_biased(self, texts: Sequence[str]) -> int:
        """How many different tokens a bias on these phrases is put on."""
        ...


_counter: TokenCounter | None = None


def use(counter: TokenCounter | None) -> None:
    """Registers the counter of this process; None: no tokenizer is loaded here."""
    global _counter
    _counter = counter


def current() -> TokenCounter | None:
    """The registered counter, or None in a process without tokenizers."""
    return _counter


def check_prompts(chat_prompt: str, tool_prompt: str) -> None:
    """Raises ``ValidationError`` by field for prompts over their limits. Without a counter nothing can be said."""
    if _counter is None:
        return
    errors: dict[str, str] = {}
    chat, tool = _counter.count_chat(chat_prompt), _counter.count_tool(tool_prompt) if tool_prompt else 0
    if chat > _counter.chat_limit:
        errors["chat_prompt"] = f"{chat} tokens; at most {_counter.chat_limit} are allowed."
    if tool > _counter.tool_limit:
        errors["tool_prompt"] = f"{tool} tokens; at most {_counter.tool_limit} are allowed."
    if errors:
        raise ValidationError(errors)

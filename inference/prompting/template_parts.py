"""Takes a chat template apart: renders marked messages and returns the text before, between and after them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import TYPE_CHECKING

from inference.prompting.thought_tags import reply_opening

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_MARK = "\ue000"  # a private-use character: no template contains it, and trimming filters keep it
# Three user turns: the template may treat the first and the last user turn differently from the others.
_CONVERSATION = ("user", "assistant", "user", "assistant", "user")
# Reasoning models are asked not to think aloud, each family in its own words; other templates ignore the arguments.
_NO_THOUGHTS = {"enable_thinking": False, "thinking": False}
_NOON = time(12)  # a template that prints the hour must not change the prompt during the day


class TemplateError(ValueError):
    """A chat template that cannot be split into the text before, between and after the message contents."""


@dataclass(frozen=True, slots=True)
class TemplateParts:
    """The text that a chat template puts around message contents.

    Attributes:
        before_system: begins every prompt.
        first_user: between the system text and the first user message.
        next_user: between a reply and the next user message.
        before_reply: between a user message and a past reply.
        after_user: between the last user message and the reply that is generated.
        first_silent: between the system text and the reply of a character that speaks first; None where the template
            insists on a user message.
        next_silent: between two replies without a user message; None together with ``first_silent``.
    """

    before_system: str
    first_user: str
    next_user: str
    before_reply: str
    after_user: str
    first_silent: str | None
    next_silent: str | None


def split_template(tokenizer: PreTrainedTokenizerBase, day: date) -> TemplateParts:
    """Split a tokenizer's chat template as it renders on one day.

    Args:
        tokenizer: its ``chat_template`` is read.
        day: what a template that reads the clock takes for today.

    Raises:
        TemplateError: the template does not render each message content once and in order.
    """
    return _Splitter(tokenizer, day).parts()


class _Splitter:
    def __init__(self, tokenizer: PreTrainedTokenizerBase, day: date) -> None:
        self._tokenizer = tokenizer
        self._now = datetime.combine(day, _NOON)

    def parts(self) -> TemplateParts:
        found = self._with_system() or self._without_system()
        if found is None:
            raise TemplateError("the model's chat template cannot be taken apart into system, user and assistant")
        before_system, first_user, next_user, before_reply, generation_prompt = found
        first_silent, next_silent = self._silent() or (None, None)
        return TemplateParts(
            before_system,
            first_user,
            next_user,
            before_reply,
            reply_opening(generation_prompt, before_reply),
            first_silent,
            next_silent,
        )

    def _render(self, messages: list[tuple[str, str]]) -> str | None:
        chat = [{"role": role, "content": content} for role, content in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    chat,
                    tokenize=False,
                    add_generation_prompt=True,
                    # transformers' own strftime_now reads the clock; Llama 3 and 4 take a date_string, else a day of
                    # 2024.
                    strftime_now=self._now.strftime,
                    date_string=self._now.strftime("%d %b %Y"),
                    **_NO_THOUGHTS,
                )
            )
        except Exception as error:  # a template is a program of the model's author and may raise anything
            logger.debug("the chat template refused %s: %s", [role for role, _ in messages], error)
            return None

    def _split(self, *roles: str) -> list[str] | None:
        """Return the text before, between and after the contents; None where they do not appear once and in order."""
        messages = [(role, f"{_MARK}{number}{_MARK}") for number, role in enumerate(roles)]
        rendered = self._render(messages)
        if rendered is None:
            return None
        parts: list[str] = []
        for _, content in messages:
            before, found, rendered = rendered.partition(content)
            if not found:
                return None
            parts.append(before)
        return None if _MARK in rendered else [*parts, rendered]

    def _with_system(self) -> tuple[str, str, str, str, str] | None:
        parts = self._split("system", *_CONVERSATION)
        return None if parts is None else (parts[0], parts[1], parts[5], parts[4], parts[6])

    def _without_system(self) -> tuple[str, str, str, str, str] | None:
        """Split a template without a system role, or that moves the system text to the last turn: the persona opens
        the first user message."""
        parts = self._split(*_CONVERSATION)
        return None if parts is None else (parts[0], "\n\n", parts[4], parts[3], parts[5])

    def _silent(self) -> tuple[str, str] | None:
        """Return the text before the first words of a character that speaks first, and between two such replies."""
        start = self._split("system")
        parts = self._split("system", "assistant", "assistant")
        if start is None or parts is None or start[0] != parts[0] or not start[1]:
            return None
        between, end = parts[2], parts[3]
        # The end opens a reply: with empty thoughts it is longer than the text before a past reply; without the name
        # of a channel it is shorter.
        if not (end.startswith(between) or between.startswith(end)):
            return None
        return reply_opening(start[1], parts[1]), reply_opening(end, between)

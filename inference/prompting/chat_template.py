"""A model's chat template as token ids. The template is split once, at start; a turn only joins lists of ids.

Two kinds of text meet here. Template text belongs to the model and may hold control tokens. The text of people
(persona, utterance, history) may not: :class:`TextEncoder` encodes it without special or added tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inference.phrases.vocabulary import Vocabulary
from inference.prompting.history import Exchange, ExchangeText
from inference.prompting.text_encoder import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_MARK = "\ue000"  # a private-use character: no template contains it, and trimming filters keep it
# Three user turns: the template may treat the first and the last user turn differently from the others.
_CONVERSATION = ("user", "assistant", "user", "assistant", "user")
# The user text for templates that cannot begin with the assistant.
NEUTRAL_OPENING = "…"


class TemplateError(ValueError):
    """A chat template that cannot be split into the text before, between and after the message contents."""


class ChatFormat:
    """One model's chat template as ids: what stands before, between and after the contents.

    A prompt is ``persona ids + exchanges + the new turn``. An exchange's own end tokens belong to the opening of the
    next one, so a record only ever grows at its end.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, utterance_max_tokens: int = 350) -> None:
        self.text = TextEncoder(tokenizer)
        self._tokenizer = tokenizer
        self._utterance_max = utterance_max_tokens
        self._reply_max = 4 * utterance_max_tokens
        segments = self._with_system() or self._without_system()
        if segments is None:
            raise TemplateError("the model's chat template cannot be taken apart into system, user and assistant")
        before_system, first_user, next_user, before_reply, after_user = segments
        # A blank that a template puts before a content belongs to the content's first token.
        before_system, self._system_lead = _without_blank(before_system)
        first_user, self.first_lead = _without_blank(first_user)
        next_user, self.next_lead = _without_blank(next_user)
        self._reply_lead = " " if before_reply == f"{after_user} " else ""
        self.before_system = self.text.template(before_system, first=True)
        self.first_user, self.next_user, self.after_user = map(self.text.template, (first_user, next_user, after_user))
        silent = self._silent_segments()
        if silent is None:
            self.first_silent = self.turn(self.user(NEUTRAL_OPENING, first=True), first=True)
            self.next_silent = self.turn(self.user(NEUTRAL_OPENING), first=False)
        else:
            self.first_silent, self.next_silent = map(self.text.template, silent)

    # -- what a session asks -----------------------------------------------------------------------

    def persona(self, chat_prompt: str) -> list[int]:
        """The ids that begin every prompt of a persona: system text and all before it."""
        return [*self.before_system, *self.system(chat_prompt)]

    def system(self, chat_prompt: str) -> list[int]:
        """The contents of the system text alone."""
        return self.text.encode(self._system_lead + chat_prompt.strip())

    def user(self, utterance: str, *, first: bool = False) -> list[int]:
        """The contents of one user turn, at most ``utterance_max_tokens``; ``first``: nothing was said before."""
        lead = self.first_lead if first else self.next_lead
        return self.text.encode_start(lead + utterance.strip(), self._utterance_max)

    def reply(self, text: str) -> list[int]:
        """The contents of one reply that was not generated here."""
        if self._reply_lead and text and not text.startswith(" "):
            text = self._reply_lead + text
        return self.text.encode_start(text, self._reply_max)

    def turn(self, user_ids: Sequence[int] | None, *, first: bool) -> list[int]:
        """What a turn appends to the record before the model speaks; None lets the character speak first."""
        if user_ids is None:
            return list(self.first_silent if first else self.next_silent)
        return [*(self.first_user if first else self.next_user), *user_ids, *self.after_user]

    def vocabulary(self) -> Vocabulary:
        """The texts of the model's tokens. Takes a fraction of a second."""
        return Vocabulary(self._tokenizer)

    # -- history.ExchangeFormat --------------------------------------------------------------------

    def encode_exchange(self, text: ExchangeText, *, first: bool) -> Exchange:
        """See :class:`inference.prompting.history.ExchangeFormat`."""
        user_ids = [] if text.user is None else self.user(text.user, first=first)
        return Exchange(text, user_ids, self.reply(text.reply))

    def exchange_ids(self, exchange: Exchange, *, first: bool) -> list[int]:
        """See :class:`inference.prompting.history.ExchangeFormat`."""
        user_ids = None if exchange.text.user is None else exchange.user_ids
        return [*self.turn(user_ids, first=first), *exchange.reply_ids]

    # -- taking the template apart -----------------------------------------------------------------

    def _render(self, messages: list[tuple[str, str]]) -> str | None:
        chat = [{"role": role, "content": content} for role, content in messages]
        try:
            # Reasoning models are asked not to think aloud; other templates ignore the argument.
            return str(
                self._tokenizer.apply_chat_template(
                    chat, tokenize=False, add_generation_prompt=True, enable_thinking=False
                )
            )
        except Exception as error:  # a template is a program of the model's author and may raise anything
            logger.debug("template refused %s: %s", [role for role, _ in messages], error)
            return None

    def _split(self, *roles: str) -> list[str] | None:
        """The text before, between and after the contents, or None where they do not appear once each and in order."""
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
        """The text before system, first user, next user and reply, and after the last user."""
        parts = self._split("system", *_CONVERSATION)
        return None if parts is None else (parts[0], parts[1], parts[5], parts[4], parts[6])

    def _without_system(self) -> tuple[str, str, str, str, str] | None:
        """Templates without a system role, or that move it to the last turn: the persona opens the first user
        message."""
        parts = self._split(*_CONVERSATION)
        return None if parts is None else (parts[0], "\n\n", parts[4], parts[3], parts[5])

    def _silent_segments(self) -> tuple[str, str] | None:
        """(before the first word of a character that speaks first, between two such replies), or None."""
        start = self._split("system")
        parts = self._split("system", "assistant", "assistant")
        if start is None or parts is None or start[0] != parts[0] or not start[1]:
            return None
        # The last one opens a reply: it may hold more than what stands before a reply of the past.
        return (start[1], parts[3]) if parts[3].startswith(parts[2]) else None


def _without_blank(text: str) -> tuple[str, str]:
    return (text[:-1], " ") if text.endswith(" ") else (text, "")

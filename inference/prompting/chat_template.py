"""A model's chat template as token ids. The template is split once, or once a day; a turn only joins lists of ids.

Two kinds of text meet here. Template text belongs to the model and may hold control tokens. The text of people
(persona, utterance, history) may not: :class:`TextEncoder` encodes it without control tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from inference.phrases.vocabulary import Vocabulary
from inference.prompting.history import Exchange, ExchangeText
from inference.prompting.template_parts import TemplateError, TemplateParts, split_template
from inference.prompting.text_encoder import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["NEUTRAL_OPENING", "ChatFormat", "TemplateError"]

# The user text for templates that cannot begin with the assistant.
NEUTRAL_OPENING = "…"
# A day with another date, month, year and weekday: a template that reads the clock renders differently.
_ANOTHER_DAY = timedelta(days=1000)


@dataclass(frozen=True, slots=True)
class _TemplateIds:
    """The ids of a template's parts on one day. The blank that a template puts before a content belongs to the
    content's first token, so the parts end without it."""

    before_system: list[int]
    first_user: list[int]
    next_user: list[int]
    after_user: list[int]
    first_silent: list[int] | None
    next_silent: list[int] | None


class ChatFormat:
    """Builds prompts from a chat template's parts: the text before, between and after the message contents.

    A prompt is ``persona ids + exchanges + the new turn``. An exchange's own end tokens belong to the opening of the
    next one, so a history only grows at its end.

    Args:
        tokenizer: the model's tokenizer with its chat template.
        utterance_max_tokens: the limit of one user message; a longer message keeps its start.
        today: returns the current day. A template that reads the clock is split again when the day changes.

    Raises:
        TemplateError: the template cannot be split.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        utterance_max_tokens: int = 350,
        today: Callable[[], date] = date.today,
    ) -> None:
        self.text = TextEncoder(tokenizer)
        self._tokenizer = tokenizer
        self._utterance_max = utterance_max_tokens
        self._reply_max = 4 * utterance_max_tokens
        self._today = today
        self._day = today()
        parts = split_template(tokenizer, self._day)
        self._reads_clock = parts != split_template(tokenizer, self._day + _ANOTHER_DAY)
        self._system_lead = _blank_at_end(parts.before_system)
        self.first_lead, self.next_lead = _blank_at_end(parts.first_user), _blank_at_end(parts.next_user)
        self._reply_lead = " " if parts.before_reply == f"{parts.after_user} " else ""
        self._ids = self._encode_parts(parts)

    def with_utterance_limit(self, max_tokens: int) -> ChatFormat:
        """Return the same format with another limit of one user message, in tokens; shares what is constant."""
        other = copy.copy(self)
        other._utterance_max, other._reply_max = max_tokens, max(self._reply_max, max_tokens)
        return other

    # -- the template's parts ----------------------------------------------------------------------

    @property
    def day(self) -> date | None:
        """The day in the template's text; None where the template does not read the clock.

        Ids of :meth:`persona` are valid as long as this value is the same.
        """
        if not self._reads_clock:
            return None
        self._current()
        return self._day

    @property
    def before_system(self) -> list[int]:
        """The ids that begin every prompt."""
        return self._current().before_system

    @property
    def first_user(self) -> list[int]:
        """The ids between the system text and the first user message."""
        return self._current().first_user

    @property
    def next_user(self) -> list[int]:
        """The ids between a reply and the next user message."""
        return self._current().next_user

    @property
    def after_user(self) -> list[int]:
        """The ids between a user message and the reply to it."""
        return self._current().after_user

    def _current(self) -> _TemplateIds:
        if self._reads_clock and (day := self._today()) != self._day:
            self._ids, self._day = self._encode_parts(split_template(self._tokenizer, day)), day
        return self._ids

    def _encode_parts(self, parts: TemplateParts) -> _TemplateIds:
        template = self.text.template
        silent = (parts.first_silent, parts.next_silent)
        return _TemplateIds(
            template(parts.before_system.removesuffix(" "), first=True),
            template(parts.first_user.removesuffix(" ")),
            template(parts.next_user.removesuffix(" ")),
            template(parts.after_user),
            *(None if text is None else template(text) for text in silent),
        )

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
        """Return the ids of a turn's user part, up to the point where the model writes.

        Args:
            user_ids: contents of the user message; None: the character speaks first.
            first: whether the turn opens the conversation.

        Returns:
            Token ids, template tokens included.
        """
        ids = self._current()
        if user_ids is None:
            silent = ids.first_silent if first else ids.next_silent
            if silent is not None:
                return list(silent)
            user_ids = self.user(NEUTRAL_OPENING, first=first)
        return [*(ids.first_user if first else ids.next_user), *user_ids, *ids.after_user]

    def whole_prompt(self, text: str) -> list[int]:
        """Encode a prompt that its author wrote with the template's control tokens.

        The tokens with which the model's tokenizer begins every text are put first where ``text`` does not spell them.
        """
        ids = self.text.template(text, first=True)
        begin: list[int] = list(self._tokenizer("")["input_ids"])
        return ids if ids[: len(begin)] == begin else [*begin, *ids]

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


def _blank_at_end(text: str) -> str:
    return " " if text.endswith(" ") else ""

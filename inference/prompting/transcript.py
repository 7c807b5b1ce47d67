"""The tool engine's view of a conversation: plain ``User:`` / ``Assistant:`` lines inside one user message."""

from __future__ import annotations

from collections.abc import Sequence

from inference.prompting.chat_template import ChatFormat
from inference.prompting.history import Exchange, ExchangeText
from inference.prompting.tool_prompt import split_examples


class TranscriptFormat:
    """Encodes transcript lines. The line to decide on comes last, so a prompt minus its closing tokens is a prefix of
    the next turn's prompt.

    Args:
        chat: the tool engine's chat template.
        utterance_max_tokens: the limit of one line; a longer line keeps its start.
    """

    def __init__(self, chat: ChatFormat, *, utterance_max_tokens: int = 350) -> None:
        self._chat = chat
        self._limit = utterance_max_tokens
        # The line break has ids of its own: the last line of one prompt must be a prefix of the next prompt's line.
        self._newline = chat.text.encode("\n")

    def system(self, tool_prompt: str) -> list[int]:
        """Return the ids that begin every decision: the tool prompt, its examples as turns, the user's opening."""
        chat = self._chat
        instructions, examples = split_examples(tool_prompt)
        ids = chat.persona(instructions)
        for number, text in enumerate(examples):
            first = number == 0
            example = chat.encode_exchange(ExchangeText(f"User: {text.user or ''}", text.reply), first=first)
            ids += chat.exchange_ids(example, first=first)
        if examples:
            return [*ids, *chat.next_user, *chat.text.encode(chat.next_lead)]
        return [*ids, *chat.first_user, *chat.text.encode(chat.first_lead)]

    def user(self, text: str) -> list[int]:
        """Return the ids of a user line without its line break."""
        return self._line("User", text)

    def decision(self, user_ids: Sequence[int]) -> list[int]:
        """Return the end of a decision prompt: the line to decide on and the closing tokens.

        Args:
            user_ids: token ids from :meth:`user`.
        """
        return [*user_ids, *self._chat.after_user]

    def past_user(self, user_ids: Sequence[int]) -> list[int]:
        """Return the contents of a past user line with its line break.

        Args:
            user_ids: token ids from :meth:`user`.
        """
        return [*user_ids, *self._newline]

    def past_reply(self, text: str) -> list[int]:
        """Return the contents of a past reply: its line and the line break."""
        return [*self._line("Assistant", text), *self._newline]

    def encode_exchange(self, text: ExchangeText, *, first: bool) -> Exchange:
        """See :class:`inference.prompting.history.ExchangeFormat`."""
        user_ids = [] if text.user is None else self.past_user(self.user(text.user))
        return Exchange(text, user_ids, self.past_reply(text.reply))

    def exchange_ids(self, exchange: Exchange, *, first: bool) -> list[int]:
        """See :class:`inference.prompting.history.ExchangeFormat`."""
        return [*exchange.user_ids, *exchange.reply_ids]

    def _line(self, speaker: str, text: str) -> list[int]:
        return self._chat.text.encode_start(f"{speaker}: {' '.join(text.split())}", self._limit)

"""The tool engine's view of a conversation: plain ``User:`` / ``Assistant:`` lines inside one user message."""

from __future__ import annotations

from inference.prompting.chat_template import ChatFormat
from inference.prompting.history import Exchange, ExchangeText
from inference.prompting.tool_prompt import split_examples


class TranscriptFormat:
    """The tool engine's view of the past: plain ``User:`` / ``Assistant:`` lines inside one user message.

    The line to decide on comes last, so everything but the closing tokens of a prompt is a prefix of the next turn's.
    """

    def __init__(self, chat: ChatFormat, *, utterance_max_tokens: int = 350) -> None:
        self._chat = chat
        self._limit = utterance_max_tokens

    def system(self, tool_prompt: str) -> list[int]:
        """The ids that begin every decision: the tool prompt, its examples as turns, the user's opening."""
        chat = self._chat
        instructions, examples = split_examples(tool_prompt)
        ids = chat.persona(instructions)
        for number, line in enumerate(examples):
            first = number == 0
            example = chat.encode_line(ExchangeText(f"User: {line.user or ''}", line.reply), first=first)
            ids += chat.exchange(example, first=first)
        if examples:
            return [*ids, *chat.next_user, *chat.text.encode(chat.next_lead)]
        return [*ids, *chat.first_user, *chat.text.encode(chat.first_lead)]

    def utterance(self, text: str) -> list[int]:
        """The line to decide on, and the end of the user message."""
        return [*self._line("User", text, newline=False), *self._chat.after_user]

    def encode_line(self, line: ExchangeText, *, first: bool) -> Exchange:
        """See :class:`inference.prompting.history.ExchangeFormat`."""
        user_ids = [] if line.user is None else self._line("User", line.user)
        return Exchange(line, user_ids, self._line("Assistant", line.reply))

    def exchange(self, exchange: Exchange, *, first: bool) -> list[int]:
        """See :class:`inference.prompting.history.ExchangeFormat`."""
        return [*exchange.user_ids, *exchange.reply_ids]

    def _line(self, speaker: str, text: str, *, newline: bool = True) -> list[int]:
        # The line break is encoded on its own: the last line of one prompt must be a prefix of the same line in the
        # next.
        ids = self._chat.text.encode_start(f"{speaker}: {' '.join(text.split())}", self._limit)
        return [*ids, *self._chat.text.encode("\n")] if newline else ids

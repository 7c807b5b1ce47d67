"""Messages to token ids. The model's chat template is taken apart once, at start; a turn only joins lists of ids.

Two kinds of text meet here. Template text is ours and may hold control tokens. What people wrote (persona, utterance,
history) may not: it is encoded so that no special or added token can come out of it, whatever it spells.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from inference.history import Exchange, Line, flatten
from inference.tool_call import split_examples
from inference.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Characters. To encode more takes milliseconds: in a thread, because meanwhile no other conversation would get a token.
LONG_TEXT = 4000
_MARK = "\ue000"  # a private-use character: no template has it, and trimming filters leave it alone
# Three user turns, so that neither the first nor the last is mistaken for the rule.
_CONVERSATION = ("user", "assistant", "user", "assistant", "user")
_BLANKS = ("▁", "Ġ")  # how vocabularies spell one
# What stands in for the user where a template cannot begin with the assistant.
NEUTRAL_OPENING = "…"


class TemplateError(ValueError):
    """A chat template that cannot be taken apart."""


class TextEncoder:
    """Text of people to ids that hold no control token, with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = {str(text): int(ident) for text, ident in tokenizer.get_added_vocab().items()}
        self._forbidden = frozenset(added.values()) | frozenset(tokenizer.all_special_ids)
        spelled = sorted((text for text in added if text), key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, spelled))) if spelled else None
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        # A copy of our own: the flag is state of the tokenizer, and template text needs it off.
        self._backend: Tokenizer | None = Tokenizer.from_str(backend.to_str()) if backend is not None else None
        if self._backend is not None:
            self._backend.no_truncation()
            self._backend.no_padding()
            self._backend.encode_special_tokens = True
        # Tokenizers in the manner of SentencePiece put a blank before a text. All that is encoded here stands in the
        # middle of one: it is encoded behind a line break, whose ids are taken off again.
        first = tokenizer.convert_ids_to_tokens(self._plain("a"))[0]
        self._break = self._plain("\n") if str(first)[:1] in _BLANKS else []

    def template(self, text: str, *, first: bool = False) -> list[int]:
        """Ids of template text, control tokens recognised; ``first``: it begins the prompt."""
        if not text:
            return []
        if not first and self._break:
            ids = list(self._tokenizer(f"\n{text}", add_special_tokens=False)["input_ids"])
            if ids[: len(self._break)] == self._break:
                return ids[len(self._break) :]
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``; none of them is special or added."""
        ids = self._encode(text)
        if self._forbidden.isdisjoint(ids):
            return ids
        # Added tokens that are not special (`<tool_call>`) survive the splitting: break their spelling.
        pieces: list[str] = []
        position = 0
        for match in self._spelled.finditer(text) if self._spelled else ():
            pieces += [text[position : match.start() + 1]]
            position = match.start() + 1
        ids = flatten(self._encode(piece) for piece in [*pieces, text[position:]] if piece)
        return [token for token in ids if token not in self._forbidden]

    def encode_start(self, text: str, limit: int) -> list[int]:
        """As :meth:`encode`, cut to the first ``limit`` ids, never inside a character."""
        # A token is rarely more than a dozen characters: there is no need to encode a book to keep its first page.
        ids = self.encode(text[: limit * 32])
        if len(ids) <= limit:
            return ids
        ids = ids[:limit]
        while ids and self._tokenizer.decode(ids[-4:]).endswith("\ufffd"):
            ids.pop()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Plain text of ``ids``."""
        return str(self._tokenizer.decode(list(ids)))

    def _encode(self, text: str) -> list[int]:
        if self._break:
            ids = self._plain(f"\n{text}")
            if ids[: len(self._break)] == self._break:
                return ids[len(self._break) :]
        return self._plain(text)

    def _plain(self, text: str) -> list[int]:
        if self._backend is not None:
            return list(self._backend.encode(text, add_special_tokens=False).ids)
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


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

    # -- what the record asks (history.ExchangeFormat) ---------------------------------------------

    def encode_line(self, line: Line, *, first: bool) -> Exchange:
        user_ids = [] if line.user is None else self.user(line.user, first=first)
        return Exchange(line, user_ids, self.reply(line.reply))

    def exchange(self, exchange: Exchange, *, first: bool) -> list[int]:
        user_ids = None if exchange.line.user is None else exchange.user_ids
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
            example = chat.encode_line(Line(f"User: {line.user or ''}", line.reply), first=first)
            ids += chat.exchange(example, first=first)
        if examples:
            return [*ids, *chat.next_user, *chat.text.encode(chat.next_lead)]
        return [*ids, *chat.first_user, *chat.text.encode(chat.first_lead)]

    def utterance(self, text: str) -> list[int]:
        """The line to decide on, and the end of the user message."""
        return [*self._line("User", text, newline=False), *self._chat.after_user]

    def encode_line(self, line: Line, *, first: bool) -> Exchange:
        """See :class:`inference.history.ExchangeFormat`."""
        user_ids = [] if line.user is None else self._line("User", line.user)
        return Exchange(line, user_ids, self._line("Assistant", line.reply))

    def exchange(self, exchange: Exchange, *, first: bool) -> list[int]:
        """See :class:`inference.history.ExchangeFormat`."""
        return [*exchange.user_ids, *exchange.reply_ids]

    def _line(self, speaker: str, text: str, *, newline: bool = True) -> list[int]:
        # The line break is encoded on its own: the last line of one prompt must be a prefix of the same line in the
        # next.
        ids = self._chat.text.encode_start(f"{speaker}: {' '.join(text.split())}", self._limit)
        return [*ids, *self._chat.text.encode("\n")] if newline else ids

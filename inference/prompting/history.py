"""The conversation history of one session for one model: a bounded list of exchanges with their token ids.

Each text is encoded once. An :class:`ExchangeFormat` (a chat template, or the tool engine's transcript) turns an
exchange into prompt ids. When the history exceeds its limit, whole old exchanges are dropped in one large step, so that
the cached prefix in the engine stays valid for many turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

TRIM_TO = 0.6  # fraction of the limit that a trim keeps; a trim to 1.0 would change the prefix in every turn
_LABEL = re.compile(r"(user|assistant):[ \t]?", re.IGNORECASE)


class HistoryError(ValueError):
    """A ``history_text`` that does not consist of ``User: …`` and ``Assistant: …`` lines."""


@dataclass(frozen=True, slots=True)
class ExchangeText:
    """One exchange as text: the user's message (None where the character spoke first) and the reply."""

    user: str | None
    reply: str

    @property
    def key(self) -> tuple[str | None, str]:
        """The comparison key of two exchanges: both texts without differences in white space.

        Clients that keep history as lines lose white space.
        """
        return None if self.user is None else _squeezed(self.user), _squeezed(self.reply)


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange with its token ids. ``user_ids`` and ``reply_ids`` hold the contents without template tokens."""

    text: ExchangeText
    user_ids: Sequence[int]
    reply_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class HistoryContents:
    """Contents of a history. ``trimmed``: older exchanges were dropped."""

    exchanges: tuple[Exchange, ...]
    trimmed: bool


class ExchangeFormat(Protocol):
    """Turns exchanges into the token ids of one model's prompt."""

    def encode_exchange(self, text: ExchangeText, *, first: bool) -> Exchange:
        """Encode the contents of one exchange. ``first`` is True where the exchange opens the conversation."""
        ...

    def exchange_ids(self, exchange: Exchange, *, first: bool) -> list[int]:
        """Return the ids of one past exchange as a prompt contains them, template tokens included."""
        ...


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def parse_history_text(text: str) -> tuple[ExchangeText, ...]:
    """Split ``User: …`` / ``Assistant: …`` lines into exchanges.

    A line without a label continues the line above. Consecutive lines of one speaker form one message. A user message
    without an answer keeps an empty reply.

    Raises:
        HistoryError: the text begins with a line that has no label.
    """
    messages: list[tuple[bool, list[str]]] = []  # (is the user's, lines)
    for raw in text.splitlines():
        label = _LABEL.match(raw.lstrip())
        if label:
            is_user, content = label[1].lower() == "user", raw.lstrip()[label.end() :]
            if messages and messages[-1][0] == is_user:
                messages[-1][1].append(content)
            else:
                messages.append((is_user, [content]))
        elif messages:
            messages[-1][1].append(raw)
        elif raw.strip():
            raise HistoryError("history_text must be lines of 'User: …' and 'Assistant: …'")
    exchanges: list[ExchangeText] = []
    user: str | None = None
    for is_user, lines in messages:
        content = "\n".join(lines).strip()
        if is_user:
            user = content
        else:
            exchanges.append(ExchangeText(user, content))
            user = None
    if user is not None:
        exchanges.append(ExchangeText(user, ""))
    return tuple(exchanges)


class History:
    """The bounded history of one session for one model. Not thread-safe.

    Args:
        exchange_format: turns exchanges into ids.
        max_tokens: the limit of :attr:`ids`.
    """

    def __init__(self, exchange_format: ExchangeFormat, max_tokens: int) -> None:
        self._format = exchange_format
        self._max_tokens = max_tokens
        self._exchanges: list[Exchange] = []
        self._ids: list[int] = []
        self._trimmed = False

    @property
    def ids(self) -> list[int]:
        """The prompt ids of all kept exchanges. Callers must not change the list."""
        return self._ids

    @property
    def texts(self) -> tuple[ExchangeText, ...]:
        """The texts of all kept exchanges, oldest first."""
        return tuple(exchange.text for exchange in self._exchanges)

    def __len__(self) -> int:
        return len(self._exchanges)

    @property
    def contents(self) -> HistoryContents:
        """The contents at this moment; later changes do not affect the returned object."""
        return HistoryContents(tuple(self._exchanges), self._trimmed)

    def restore(self, contents: HistoryContents, *, same_ids: bool) -> None:
        """Take over the contents of another history.

        Args:
            contents: from :attr:`contents`, perhaps of another process.
            same_ids: whether the ids were made by an equal encoder; if not, the texts are encoded again.
        """
        if not same_ids:
            self.replace([exchange.text for exchange in contents.exchanges])
            self._trimmed = contents.trimmed
            return
        self._exchanges, self._trimmed = list(contents.exchanges), contents.trimmed
        self._rebuild()
        self._trim()

    def copy(self) -> History:
        """Return a history with the same exchanges; a change of one does not change the other."""
        other = History(self._format, self._max_tokens)
        other._exchanges, other._ids, other._trimmed = list(self._exchanges), list(self._ids), self._trimmed
        return other

    def append(self, exchange: Exchange) -> bool:
        """Add the newest exchange. Returns True where the history was full and lost its oldest exchanges."""
        self._exchanges.append(exchange)
        self._ids += self._format.exchange_ids(exchange, first=len(self._exchanges) == 1)
        return self._trim()

    def limit(self, max_tokens: int) -> None:
        """Change the limit: another persona leaves more or less room."""
        self._max_tokens = max_tokens
        self._trim()

    def replace(self, texts: Sequence[ExchangeText]) -> None:
        """Take the client's own history. Exchanges that equal kept ones keep their ids; the others are encoded."""
        texts = texts[-self._max_tokens :] if self._max_tokens else ()  # an exchange has at least one token
        ours, theirs = [exchange.text.key for exchange in self._exchanges], [text.key for text in texts]
        start, same = self._alignment(ours, theirs)
        known = dict(zip(ours, self._exchanges, strict=True))
        kept: list[Exchange] = []
        room = self._max_tokens
        for index in range(len(texts) - 1, start - 1, -1):
            if index < start + same:
                exchange = self._exchanges[index - start]
            else:
                exchange = known.get(theirs[index]) or self._format.encode_exchange(texts[index], first=not index)
            kept.append(exchange)
            room -= len(self._format.exchange_ids(exchange, first=False))
            if room < 0:  # a trim would drop every older exchange, so none of them is encoded
                break
        kept.reverse()
        if same == len(self._exchanges) == len(kept):
            return
        self._trimmed = self._trimmed and same > 0
        self._exchanges = kept
        self._rebuild()
        self._trim()

    def cut_last_reply(self, characters: int) -> None:
        """Keep the first ``characters`` code points of the last reply. The user's ids stay as the engine saw them."""
        if not self._exchanges or characters >= len(self._exchanges[-1].text.reply):
            return
        last = self._exchanges[-1]
        text = replace(last.text, reply=last.text.reply[:characters])
        encoded = self._format.encode_exchange(text, first=len(self._exchanges) == 1)
        self._exchanges[-1] = Exchange(text, last.user_ids, encoded.reply_ids)
        self._rebuild()

    def drop_last(self) -> None:
        """Remove the newest exchange, if there is one."""
        if self._exchanges:
            self._exchanges.pop()
            self._rebuild()

    def _alignment(self, ours: Sequence[object], theirs: Sequence[object]) -> tuple[int, int]:
        """Find where the kept exchanges occur in the client's history.

        A history that was trimmed begins somewhere inside the client's; otherwise both begin together.

        Returns:
            (index into ``theirs`` of our first exchange, number of equal exchanges from there).
        """
        best = (0, 0)
        for start in range(len(theirs) if self._trimmed else min(1, len(theirs))):
            same = 0
            for mine, other in zip(ours, theirs[start : start + len(ours)], strict=False):
                if mine != other:
                    break
                same += 1
            if same and same >= best[1]:
                best = (start, same)
        return best

    def _trim(self) -> bool:
        if len(self._ids) <= self._max_tokens:
            return False
        goal = int(self._max_tokens * TRIM_TO)
        sizes = [len(self._format.exchange_ids(exchange, first=False)) for exchange in self._exchanges]
        kept = sum(sizes)
        dropped = 0
        while kept > goal and dropped < len(sizes) - 1:
            kept -= sizes[dropped]
            dropped += 1
        if kept > self._max_tokens:  # one exchange alone exceeds the limit
            dropped = len(sizes)
        del self._exchanges[:dropped]
        self._trimmed = True
        self._rebuild()
        return True

    def _rebuild(self) -> None:
        self._ids = flatten(self._format.exchange_ids(e, first=not n) for n, e in enumerate(self._exchanges))


def flatten(parts: Iterable[Iterable[int]]) -> list[int]:
    """Join lists of token ids into one list."""
    return [token for part in parts for token in part]

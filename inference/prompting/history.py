"""The conversation so far, bounded, as token ids: what was said is encoded once and never again.

The record is a list of exchanges. How an exchange becomes ids is the format's business (a chat template, or the tool
engine's plain transcript); when the record grows over its limit, whole old exchanges go in one larger step, so that the
prefix that the engine has cached stays the same for many turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

TRIM_TO = 0.6  # of the limit: after a trim the prefix holds for many turns, not for one
_LABEL = re.compile(r"(user|assistant):[ \t]?", re.IGNORECASE)


class HistoryError(ValueError):
    """A ``history_text`` that is not lines of ``User: …`` and ``Assistant: …``."""


@dataclass(frozen=True, slots=True)
class ExchangeText:
    """One exchange as text: what the user said (None: the character spoke first) and what was answered."""

    user: str | None
    reply: str

    @property
    def key(self) -> tuple[str | None, str]:
        """What two equal lines share: everything but white space, which line-based clients cannot keep."""
        return None if self.user is None else _squeezed(self.user), _squeezed(self.reply)


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange with its ids. ``user_ids`` and ``reply_ids`` hold the contents alone, no template tokens."""

    line: ExchangeText
    user_ids: Sequence[int]
    reply_ids: Sequence[int]


class ExchangeFormat(Protocol):
    """How exchanges become ids for one model."""

    def encode_line(self, line: ExchangeText, *, first: bool) -> Exchange:
        """Encode the contents of one exchange; ``first``: nothing was said before it."""
        ...

    def exchange(self, exchange: Exchange, *, first: bool) -> list[int]:
        """The ids of one past exchange, template tokens included, as it stands in a prompt."""
        ...


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def parse_history_text(text: str) -> tuple[ExchangeText, ...]:
    """``User: …`` / ``Assistant: …`` lines to exchanges; a line without a label continues the one above.

    Two lines of the same speaker in a row are one. A user line that nobody answered keeps an empty reply.
    Raises :class:`HistoryError` where the text begins with something else.
    """
    spoken: list[tuple[bool, list[str]]] = []  # (is the user, lines)
    for raw in text.splitlines():
        label = _LABEL.match(raw.lstrip())
        if label:
            is_user, content = label[1].lower() == "user", raw.lstrip()[label.end() :]
            if spoken and spoken[-1][0] == is_user:
                spoken[-1][1].append(content)
            else:
                spoken.append((is_user, [content]))
        elif spoken:
            spoken[-1][1].append(raw)
        elif raw.strip():
            raise HistoryError("history_text must be lines of 'User: …' and 'Assistant: …'")
    lines: list[ExchangeText] = []
    user: str | None = None
    for is_user, content_lines in spoken:
        content = "\n".join(content_lines).strip()
        if is_user:
            user = content
        else:
            lines.append(ExchangeText(user, content))
            user = None
    if user is not None:
        lines.append(ExchangeText(user, ""))
    return tuple(lines)


class History:
    """The bounded record of one session for one model. Not shared, not thread-safe."""

    def __init__(self, form: ExchangeFormat, max_tokens: int) -> None:
        self._form = form
        self._max_tokens = max_tokens
        self._exchanges: list[Exchange] = []
        self._ids: list[int] = []
        self._trimmed = False

    @property
    def ids(self) -> list[int]:
        """All kept exchanges as ids. Do not change the list."""
        return self._ids

    @property
    def lines(self) -> tuple[ExchangeText, ...]:
        return tuple(exchange.line for exchange in self._exchanges)

    def __len__(self) -> int:
        return len(self._exchanges)

    def append(self, exchange: Exchange) -> bool:
        """Add what was just said and delivered. True when the record was full and lost its oldest turns."""
        self._exchanges.append(exchange)
        self._ids += self._form.exchange(exchange, first=len(self._exchanges) == 1)
        return self._bound()

    def limit(self, max_tokens: int) -> None:
        """Change the limit (another persona leaves more or less room)."""
        self._max_tokens = max_tokens
        self._bound()

    def replace(self, lines: Sequence[ExchangeText]) -> None:
        """Take a client's own record. Where it equals ours, our ids stay; only what differs is encoded."""
        lines = lines[-self._max_tokens :] if self._max_tokens else ()  # each takes a token at least
        ours, theirs = [exchange.line.key for exchange in self._exchanges], [line.key for line in lines]
        start, same = self._alignment(ours, theirs)
        known = dict(zip(ours, self._exchanges, strict=True))
        kept: list[Exchange] = []
        room = self._max_tokens
        for index in range(len(lines) - 1, start - 1, -1):
            if index < start + same:
                exchange = self._exchanges[index - start]
            else:
                exchange = known.get(theirs[index]) or self._form.encode_line(lines[index], first=not index)
            kept.append(exchange)
            room -= len(self._form.exchange(exchange, first=False))
            if room < 0:  # what is older would be trimmed in any case, so it need not be encoded
                break
        kept.reverse()
        if same == len(self._exchanges) == len(kept):
            return
        self._trimmed = self._trimmed and same > 0
        self._exchanges = kept
        self._rebuild()
        self._bound()

    def cut_last_reply(self, heard: int) -> None:
        """The user heard only the first ``heard`` characters of the last reply: forget the rest."""
        if not self._exchanges or heard >= len(self._exchanges[-1].line.reply):
            return
        last = self._exchanges[-1]
        line = replace(last.line, reply=last.line.reply[:heard])
        encoded = self._form.encode_line(line, first=len(self._exchanges) == 1)
        # The user's ids stay as the engine saw them.
        self._exchanges[-1] = Exchange(line, last.user_ids, encoded.reply_ids)
        self._rebuild()

    def _alignment(self, ours: Sequence[object], theirs: Sequence[object]) -> tuple[int, int]:
        """(first line of theirs that meets our first exchange, how many exchanges are equal from there).

        A record that was trimmed begins somewhere inside the client's; one that was not begins where theirs begins.
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

    def _bound(self) -> bool:
        if len(self._ids) <= self._max_tokens:
            return False
        goal = int(self._max_tokens * TRIM_TO)
        sizes = [len(self._form.exchange(exchange, first=False)) for exchange in self._exchanges]
        kept = sum(sizes)
        dropped = 0
        while kept > goal and dropped < len(sizes) - 1:
            kept -= sizes[dropped]
            dropped += 1
        if kept > self._max_tokens:  # one exchange alone is over the limit
            dropped = len(sizes)
        del self._exchanges[:dropped]
        self._trimmed = True
        self._rebuild()
        return True

    def _rebuild(self) -> None:
        self._ids = flatten(self._form.exchange(e, first=not n) for n, e in enumerate(self._exchanges))


def flatten(parts: Iterable[Iterable[int]]) -> list[int]:
    """One list of ids out of many."""
    return [token for part in parts for token in part]

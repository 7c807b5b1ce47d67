"""Holds a reasoning model's thoughts out of a reply while the reply is streamed.

A chat template's generation prompt already keeps most models from thinking (inference/prompting/thought_tags.py). This
filter is for models that think nevertheless::

    generated   <think>\\nThe user greets.\\n</think>\\n\\nHello! I <3 you.
    visible                                         Hello! I <3 you.
    held                                                     <      until the next character shows that no tag begins
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from inference.prompting.thought_tags import THOUGHT_TAGS, ThoughtTags


@dataclass(frozen=True, slots=True)
class ThoughtMarks:
    """The marks that a filter looks for, prepared once for all replies.

    Attributes:
        closing_of: opening mark → closing mark.
        all: every mark.
        first_characters: the characters that marks begin with.
    """

    closing_of: Mapping[str, str]
    all: tuple[str, ...]
    first_characters: frozenset[str]

    @classmethod
    def of(cls, tags: Sequence[ThoughtTags]) -> ThoughtMarks:
        """Return the marks of these tags."""
        closing_of = {tag.opening: tag.closing for tag in tags}
        marks = (*closing_of, *closing_of.values())
        return cls(closing_of, marks, frozenset(mark[0] for mark in marks))


_KNOWN_MARKS = ThoughtMarks.of(THOUGHT_TAGS)


class _State(Enum):
    BEFORE_TEXT = auto()  # only white space was generated since the reply, or its last thought, began
    TEXT = auto()
    THOUGHTS = auto()


@dataclass(slots=True)
class _Chunk:
    """Generated text and its ids. ``whole`` is False once a part of the text was taken."""

    text: str
    token_ids: list[int]
    whole: bool = True


class ThoughtFilter:
    """Separates one reply's thoughts from its text. Create one for each reply.

    The result does not depend on how the generated text was divided into deltas.

    Args:
        encode: returns the ids of a text without control tokens; called where one delta holds thoughts and text.
        encode_mark: returns the ids of a mark, as the model generates it.
        marks: the marks to look for.

    Attributes:
        prefix_ids: generated ids before the first visible text. A request that continues the reply puts them between
            the prompt and the visible ids.
    """

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        encode_mark: Callable[[str], list[int]],
        marks: ThoughtMarks = _KNOWN_MARKS,
    ) -> None:
        self._encode, self._encode_mark = encode, encode_mark
        self._closing_of, self._marks = marks.closing_of, marks.all
        self._first_characters = marks.first_characters
        self._state = _State.BEFORE_TEXT
        self._closing = ""
        self._after_thoughts = False  # white space that follows thoughts is not part of the reply
        self._chunks: deque[_Chunk] = deque()
        self._seen = self._visible = 0  # tokens
        self._started = False
        self.prefix_ids: list[int] = []

    @property
    def thinking(self) -> bool:
        """Whether the generated text so far ends inside of thoughts."""
        return self._state is _State.THOUGHTS

    @property
    def reasoning_tokens(self) -> int:
        """Generated tokens that are not part of the reply: thoughts, their marks, and the white space behind them."""
        return max(0, self._seen - self._visible - (0 if self.thinking else self._held_tokens()))

    @property
    def closing(self) -> str:
        """The mark that ends the running thoughts; empty while there are none."""
        return self._closing

    @property
    def held_ids(self) -> list[int]:
        """The ids of held text. A request that continues the reply puts them behind the visible ids."""
        found: list[int] = []
        for chunk in self._chunks:
            found += chunk.token_ids if chunk.whole else self._encode(chunk.text)
        return found

    def drop_held(self) -> None:
        """Forget the held text: the reply goes back to an earlier visible place."""
        self._seen -= self._held_tokens()
        self._chunks.clear()
        if self._state is not _State.THOUGHTS:
            self._state = _State.TEXT if self._started else _State.BEFORE_TEXT

    def feed(self, text: str, token_ids: Sequence[int]) -> tuple[str, list[int]]:
        """Take one delta.

        Args:
            text: generated text; may be empty.
            token_ids: its ids.

        Returns:
            The text that is visible now, and its ids. Both may be empty.
        """
        self._seen += len(token_ids)
        if not self._chunks and self._first_characters.isdisjoint(text) and self._continues_text(text):
            self._state = _State.TEXT
            self._started = self._started or bool(token_ids)
            self._visible += len(token_ids)
            return text, list(token_ids)
        self._chunks.append(_Chunk(text, list(token_ids)))
        return self._settle(at_end=False)

    def finish(self) -> tuple[str, list[int]]:
        """End the reply: return the held text and its ids. Thoughts that were not closed stay hidden."""
        return self._settle(at_end=True)

    def close_thoughts(self) -> None:
        """End the running thoughts. The caller continues the reply with another request.

        The closing mark becomes part of :attr:`prefix_ids`. Thoughts in the middle of a reply are left out of the next
        request altogether.
        """
        closing = self._closing
        self._take(len(self._pending()), visible=False)
        if not self._started:
            self.prefix_ids += self._encode_mark(f"{closing}\n\n")
        self._enter_text()

    def _continues_text(self, text: str) -> bool:
        """Whether a text without marks is text of the reply, and not white space before or behind thoughts."""
        if self._state is _State.BEFORE_TEXT:
            return not self._after_thoughts and bool(text) and not text.isspace()
        return self._state is _State.TEXT

    # -- the held text -------------------------------------------------------------------------------

    def _settle(self, *, at_end: bool) -> tuple[str, list[int]]:
        texts: list[str] = []
        ids: list[int] = []

        def show(count: int) -> None:
            text, shown = self._take(count, visible=True)
            texts.append(text)
            ids.extend(shown)

        while pending := self._pending():
            if self._state is _State.THOUGHTS:
                end = pending.find(self._closing)
                if end < 0:
                    keep = 0 if at_end else _beginning_at_end(pending, (self._closing,))
                    self._take(len(pending) - keep, visible=False)
                    break
                self._take(end + len(self._closing), visible=False)
                self._enter_text()
                continue
            blanks = len(pending) - len(pending.lstrip()) if self._state is _State.BEFORE_TEXT else 0
            position, mark = _first_mark(pending, self._marks)
            if self._state is _State.BEFORE_TEXT and (position > blanks or not mark):
                if self._after_thoughts:
                    self._take(blanks, visible=False)
                    blanks = 0
                rest = self._pending()[blanks:]
                if not at_end and any(mark.startswith(rest) for mark in self._marks):
                    break  # a mark may begin here; an empty rest may become anything
                self._state = _State.TEXT
            elif mark:
                if self._state is _State.TEXT:
                    show(position)
                self._take(len(self._pending()) - len(pending) + position + len(mark), visible=False)
                if mark in self._closing_of:
                    self._state, self._closing = _State.THOUGHTS, self._closing_of[mark]
                else:  # a closing mark without an opening one
                    self._enter_text()
            else:
                keep = 0 if at_end else _beginning_at_end(pending, self._marks)
                show(len(pending) - keep)
                break
        return "".join(texts), ids

    def _enter_text(self) -> None:
        self._state, self._closing, self._after_thoughts = _State.BEFORE_TEXT, "", True

    def _held_tokens(self) -> int:
        return sum(len(chunk.token_ids) for chunk in self._chunks)

    def _pending(self) -> str:
        return "".join(chunk.text for chunk in self._chunks)

    def _take(self, count: int, *, visible: bool) -> tuple[str, list[int]]:
        """Remove ``count`` characters from the held text; return them with their ids."""
        texts: list[str] = []
        ids: list[int] = []
        while self._chunks and (count or not self._chunks[0].text):
            chunk = self._chunks[0]
            if len(chunk.text) <= count:
                self._chunks.popleft()
                text, whole = chunk.text, chunk.whole
            else:
                text, whole = chunk.text[:count], False
                chunk.text, chunk.whole = chunk.text[count:], False
            count -= len(text)
            texts.append(text)
            ids += chunk.token_ids if whole else self._encode(text)
        if visible:
            self._started = self._started or bool(ids)
            self._visible += len(ids)
        elif not self._started:
            self.prefix_ids += ids
        return "".join(texts), ids


def _first_mark(text: str, marks: Sequence[str]) -> tuple[int, str]:
    """Return the position of the first mark in a text and the mark; the text's length and "" where there is none."""
    found = [(position, mark) for mark in marks if (position := text.find(mark)) >= 0]
    return min(found) if found else (len(text), "")


def _beginning_at_end(text: str, marks: Sequence[str]) -> int:
    """Return how many characters at the end of a text may be the beginning of a mark."""
    longest = max(map(len, marks)) - 1
    for count in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-count:]) for mark in marks):
            return count
    return 0

"""Text of people to token ids, without any control token, whatever the text spells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from inference.prompting.history import flatten

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Characters. Encoding a longer text takes milliseconds, so callers run the encoding in a thread.
LONG_TEXT_CHARS = 4000
_BLANKS = ("▁", "Ġ")  # how vocabularies spell a blank


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

"""Encodes the text of people as token ids: no control token comes out of a text, and no character of it is lost."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any

import orjson
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Characters. Encoding a longer text takes milliseconds, so callers run the encoding in a thread.
LONG_TEXT_CHARS = 4000
# The longest token in use, in characters, is a run of blanks. A text is cut to this many characters per allowed token
# before it is encoded, so a book is not encoded for its first page.
MAX_CHARS_PER_TOKEN = 32
# Added tokens that are not marked special and still structure a prompt: <tool_call>, <｜User｜>, [INST], ◁think▷. Other
# added tokens are ordinary text: runs of blanks (OLMo, MPT), line breaks (Gemma), single letters (DeepSeek-Coder).
_CONTROL = re.compile(r"▁?(<.+>|\[.+\]|◁.+▷)", re.DOTALL)
_BLANKS = ("▁", "Ġ")  # how vocabularies spell a blank
_HALF = "\N{REPLACEMENT CHARACTER}"
_MAX_BYTES = 4  # of one character in UTF-8


class TextEncoder:
    """Encodes text for one model.

    A copy of the model's tokenizer without its control tokens encodes the text, so the spelling of a control token
    becomes ordinary tokens. The copy also puts no blank before a text: every text stands in the middle of a prompt.

    Args:
        tokenizer: the model's tokenizer; it is not changed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = {str(text): int(ident) for text, ident in tokenizer.get_added_vocab().items()}
        special = {int(ident) for ident in tokenizer.all_special_ids}
        control = {text: ident for text, ident in added.items() if ident in special or _CONTROL.fullmatch(text)}
        self.control_ids = frozenset(control.values()) | special
        """Ids that never come out of :meth:`encode`."""
        # A byte-level decoder reads an added "ü" as the byte 0xFC: such a token is not used for text either.
        unfaithful = {text for text, ident in added.items() if self._decoded(ident) != text}
        self._text_tokenizer = _without(tokenizer, control.keys() | unfaithful)
        # Removing added tokens renumbers those behind them that the model's own vocabulary does not hold.
        renumbered = {self._text_tokenizer.token_to_id(text): ident for text, ident in added.items()}
        self._original_ids = {new: old for new, old in renumbered.items() if new is not None and new != old}
        spelled = sorted(filter(None, control), key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, spelled))) if spelled else None
        # Tokenizers in the manner of SentencePiece put a blank before a text and take one off again. In the middle of a
        # prompt neither may happen, so such a text is given and taken behind a line break.
        first = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"])[0]
        self._break = self._plain("\n") if str(first)[:1] in _BLANKS else []

    def template(self, text: str, *, first: bool = False) -> list[int]:
        """Encode template text, control tokens recognised.

        Args:
            text: a part of a rendered chat template.
            first: True where the part begins the prompt.
        """
        if not text:
            return []
        if not first and self._break:
            ids = list(self._tokenizer(f"\n{text}", add_special_tokens=False)["input_ids"])
            lead = list(self._tokenizer("\n", add_special_tokens=False)["input_ids"])
            if ids[: len(lead)] == lead:
                return ids[len(lead) :]
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; none of them is in :attr:`control_ids`."""
        ids = self._plain(text)
        if self.control_ids.isdisjoint(ids):
            return ids
        # The model's own vocabulary may spell a control token as one token, too: encode around each spelling.
        pieces: list[str] = []
        position = 0
        for match in self._spelled.finditer(text) if self._spelled else ():
            pieces.append(text[position : match.start() + 1])
            position = match.start() + 1
        ids = [token for piece in (*pieces, text[position:]) if piece for token in self._plain(piece)]
        # The unknown token remains where a vocabulary has no bytes; engines refuse such a tokenizer (tokenizer.py).
        return [token for token in ids if token not in self.control_ids]

    def encode_start(self, text: str, limit: int) -> list[int]:
        """Return at most ``limit`` ids of the beginning of a text, cut between two characters."""
        ids = self.encode(text[: limit * MAX_CHARS_PER_TOKEN])
        if len(ids) <= limit:
            return ids
        ids = ids[:limit]
        for _ in range(_MAX_BYTES - 1):
            if not ids or not self.decode(ids[-_MAX_BYTES:]).endswith(_HALF):
                break
            ids.pop()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids in the middle of a prompt: the inverse of :meth:`encode`.

        Args:
            ids: token ids, without the template's tokens.
        """
        backend = self._tokenizer.backend_tokenizer
        if not self._break:
            return str(backend.decode(list(ids), skip_special_tokens=False))
        return str(backend.decode([*self._break, *ids], skip_special_tokens=False))[1:]

    def _decoded(self, token: int) -> str:
        return str(self._tokenizer.backend_tokenizer.decode([token], skip_special_tokens=False))

    def _plain(self, text: str) -> list[int]:
        if len(text) <= LONG_TEXT_CHARS:
            ids: list[int] = self._text_tokenizer.encode(text, add_special_tokens=False).ids
        else:  # encode() holds the interpreter's lock for its whole time, also in a thread; encode_batch() releases it
            ids = self._text_tokenizer.encode_batch([text], add_special_tokens=False)[0].ids
        if self._original_ids:
            return [self._original_ids.get(token, token) for token in ids]
        return list(ids)


def _without(tokenizer: PreTrainedTokenizerBase, removed: Set[str]) -> Tokenizer:
    """Return a copy of a tokenizer that neither recognises the added tokens ``removed`` nor puts a blank first."""
    state: dict[str, Any] = orjson.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [
        {**token, "lstrip": False, "rstrip": False}
        for token in state["added_tokens"]
        if token["content"] not in removed
    ]
    state["truncation"] = state["padding"] = state["post_processor"] = None
    for stage in ("normalizer", "pre_tokenizer"):
        state[stage] = _without_leading_blank(state[stage])
    return Tokenizer.from_str(orjson.dumps(state).decode())


def _without_leading_blank(stage: dict[str, Any] | None) -> dict[str, Any] | None:
    """Take the step that puts a blank before a text out of a normalizer or pre-tokenizer in tokenizer.json's form."""
    if stage is None or stage["type"] == "Prepend":
        return None
    stage = dict(stage)
    for steps in ("normalizers", "pretokenizers"):
        if steps in stage:
            stage[steps] = [step for step in map(_without_leading_blank, stage[steps]) if step is not None]
    if stage["type"] == "Metaspace":
        stage["prepend_scheme"] = "never"
        stage.pop("add_prefix_space", None)
    elif stage.get("add_prefix_space"):
        stage["add_prefix_space"] = False
    return stage

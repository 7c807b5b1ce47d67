"""The texts of a model's tokens, searchable: which tokens contain a banned phrase by themselves."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING

from inference.phrases.guard import PhraseAutomaton, PhraseGuard
from inference.phrases.units import FOLDED, canonical

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# In the order of the vocabulary, which most tokenizers sort by frequency.
MAX_TOKENS_PER_PHRASE = 500
_BETWEEN = "\0"
_LETTER = "a"

TokensContaining = Callable[[str], frozenset[int]]


def no_tokens_containing(_phrase: str) -> frozenset[int]:
    """Return an empty set for every phrase: the vocabulary is not known."""
    return frozenset()


class Vocabulary:
    """The token texts of one model. Building takes a fraction of a second, so it is done in a thread.

    Args:
        tokenizer: a tokenizer with a Rust backend; without one the vocabulary is empty.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        each = [[token] for token in range(len(tokenizer))]
        self._texts: list[str] = backend.decode_batch(each, skip_special_tokens=True) if backend else []
        folded = [canonical(FOLDED.units(text)) for text in self._texts]
        self._starts = list(accumulate((len(text) + 1 for text in folded[:-1]), initial=0))
        self._folded = _BETWEEN.join(folded)

    def tokens_containing(self, automaton: PhraseAutomaton) -> TokensContaining:
        """Return a cached search for tokens whose text contains a whole phrase of ``automaton``.

        The search takes a phrase and returns at most ``MAX_TOKENS_PER_PHRASE`` token ids, in a few milliseconds.
        """
        known: dict[str, frozenset[int]] = {}

        def search(phrase: str) -> frozenset[int]:
            if phrase not in known:
                some = sorted(self._candidates(phrase))[:MAX_TOKENS_PER_PHRASE]
                known[phrase] = frozenset(token for token in some if self._contains(automaton, token))
            return known[phrase]

        return search

    def _candidates(self, phrase: str) -> set[int]:
        """Return the tokens whose units contain those of the phrase."""
        wanted, found = canonical(FOLDED.units(phrase)), set()
        at = self._folded.find(wanted)
        while at >= 0:
            token = bisect_right(self._starts, at) - 1
            found.add(token)
            at = self._folded.find(wanted, at + 1)
        return found

    def _contains(self, automaton: PhraseAutomaton, token: int) -> bool:
        """Return whether the guard finds a phrase in the token between two letters.

        A whole-word phrase is not found: the text around the token decides about it.
        """
        text = self._texts[token]
        _, hit = PhraseGuard(automaton).feed(f"{_LETTER}{text}{_LETTER}")
        return hit is not None and len(_LETTER) <= hit.start and hit.end <= len(_LETTER) + len(text)

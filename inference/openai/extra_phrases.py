"""Banned phrases of one request, compiled once for each list, beside the lists of operators."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import replace

from inference.engines.base import Engine
from inference.openai.sampling import RequestSampling, known_tokens
from inference.phrases.automaton import PhraseAutomaton
from inference.phrases.compiled import CompiledPhrases, PhraseStore
from personas.snapshot import PhraseRule

MAX_LISTS = 256


class ExtraPhrases:
    """Compiles the phrases of requests in a thread and remembers the last :data:`MAX_LISTS` lists."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[tuple[str, ...], tuple[PhraseStore, CompiledPhrases]] = OrderedDict()

    async def added(
        self, base: CompiledPhrases, store: PhraseStore, sampling: RequestSampling, engine: Engine | None
    ) -> CompiledPhrases:
        """Return phrases in force together with those of a request.

        Args:
            base: the phrases of the persona and of the global lists.
            store: compiles for the tokenizer in use.
            sampling: the request's banned phrases, in any letter case, and its token biases; the operators' win.
            engine: writes the reply.
        """
        texts, bias = sampling.banned, known_tokens(sampling.logit_bias, engine)
        if bias:
            base = replace(base, logit_bias={**bias, **base.logit_bias})
        if not texts:
            return base
        extra = await self._of(store, texts)

        def tokens_containing(phrase: str) -> frozenset[int]:
            return base.tokens_containing(phrase) | extra.tokens_containing(phrase)

        automaton = PhraseAutomaton(
            (*base.automaton.matchers, *extra.automaton.matchers),
            base.automaton.whole_words or extra.automaton.whole_words,
        )
        return CompiledPhrases(automaton, base.logit_bias, tokens_containing)

    async def _of(self, store: PhraseStore, texts: tuple[str, ...]) -> CompiledPhrases:
        known = self._compiled.get(texts)
        if known is not None and known[0] is store:
            self._compiled.move_to_end(texts)
            return known[1]
        rules = tuple(PhraseRule(text) for text in texts)
        compiled = await asyncio.to_thread(store.compile_rules, rules)
        self._compiled[texts] = store, compiled
        if len(self._compiled) > MAX_LISTS:
            self._compiled.popitem(last=False)
        return compiled

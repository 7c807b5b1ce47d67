"""Phrase lists compiled for serving: one automaton, token biases and a token search per distinct list.

Compiling a long list takes seconds, so :meth:`PhraseStore.compile` runs in a thread and :meth:`PhraseStore.install`
puts the result in force on the serving loop in one step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from inference.phrases.automaton import PhraseAutomaton
from inference.phrases.vocabulary import TokensContaining, Vocabulary, no_tokens_containing
from personas.snapshot import Catalogue, PersonaSnapshot, PhraseRule

logger = logging.getLogger(__name__)

# vLLM's GPU sampler takes 1,024 biased tokens per request. The rest is for the tokens that a retry forbids.
MAX_BIASED_TOKENS = 900

Rules = tuple[PhraseRule, ...]


class TextIds(Protocol):
    """Encodes text to token ids."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, with no control token among them."""
        ...


class PhraseTokenizer(Protocol):
    """The part of a chat model's tokenizer that phrase lists need (``prompting.chat_template.ChatFormat`` has it)."""

    @property
    def text(self) -> TextIds:
        """Encoder of plain text."""
        ...

    def vocabulary(self) -> Vocabulary:
        """Return the texts of the model's tokens. Takes a fraction of a second."""
        ...


@dataclass(frozen=True, slots=True)
class CompiledPhrases:
    """One phrase list, compiled.

    Args:
        automaton: the banned phrases.
        logit_bias: token id to bias, for every step of a reply; at most ``MAX_BIASED_TOKENS`` entries.
        tokens_containing: returns the ids of the tokens whose own text contains a phrase.
    """

    automaton: PhraseAutomaton
    logit_bias: Mapping[int, float]
    tokens_containing: TokensContaining


@dataclass(frozen=True, slots=True)
class CompiledCatalogue:
    """Every phrase list that a session may need under one catalogue.

    Args:
        catalogue: the catalogue that was compiled.
        by_rules: the distinct lists; the next compilation takes over those that it needs again.
        without_persona: the global phrases alone, for sessions without a stored persona.
        by_slug: the phrases of each persona of the catalogue, with the global ones before them.
        retained: the same for snapshots that are not in the catalogue and that a session may still hold, by ``id`` of
            the snapshot (snapshots have no hash). The snapshot stands beside its phrases to keep its id in use.
    """

    catalogue: Catalogue
    by_rules: Mapping[Rules, CompiledPhrases]
    without_persona: CompiledPhrases
    by_slug: Mapping[str, CompiledPhrases] = field(default_factory=dict)
    retained: Mapping[int, tuple[PersonaSnapshot, CompiledPhrases]] = field(default_factory=dict)


def token_biases(encode: Callable[[str], list[int]], rules: Iterable[PhraseRule]) -> dict[int, float]:
    """Return token id to bias for the rules that ban nothing.

    Each token of such a phrase gets the rule's bias, both of the phrase as written and of the phrase behind a blank:
    most vocabularies have different tokens for a word inside a sentence.
    """
    bias: dict[int, float] = {}
    for rule in rules:
        if not rule.banned:
            for spelled in (rule.text, f" {rule.text}"):
                bias |= dict.fromkeys(encode(spelled), rule.bias)
    return bias


def _let_others_run() -> None:
    """Give up the interpreter lock: the serving loop waits for a compiling thread for about a millisecond at most."""
    time.sleep(0.001)


class PhraseStore:
    """The compiled phrases of one process.

    Args:
        tokenizer: the chat model's; None where the process has no chat engine (then there are no token biases).
    """

    def __init__(self, tokenizer: PhraseTokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: Vocabulary | None = None
        empty = Catalogue()
        self._installed = CompiledCatalogue(empty, {}, self._compile(empty.phrases))

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue in force."""
        return self._installed.catalogue

    def compile(self, catalogue: Catalogue, held: Iterable[PersonaSnapshot] = ()) -> CompiledCatalogue:
        """Compile every list that a session may need once ``catalogue`` is in force. For a thread, one call at a time.

        Args:
            catalogue: the catalogue that is about to be installed.
            held: the snapshots that live sessions hold. A session keeps a persona that left the catalogue. Personas of
                the catalogue still in force need no mention: a session that begins while this runs may take them.
        """
        before = self._installed
        by_rules: dict[Rules, CompiledPhrases] = {}

        def compiled(rules: Rules) -> CompiledPhrases:
            if rules not in by_rules:
                by_rules[rules] = before.by_rules.get(rules) or self._compile(rules)
            return by_rules[rules]

        return CompiledCatalogue(
            catalogue,
            by_rules,
            compiled(catalogue.phrases),
            {slug: compiled(catalogue.phrases + persona.phrases) for slug, persona in catalogue.personas.items()},
            {
                id(snapshot): (snapshot, compiled(catalogue.phrases + snapshot.phrases))
                for snapshot in [*held, *before.catalogue.personas.values()]
                if catalogue.by_slug(snapshot.slug) is None
            },
        )

    def compile_rules(self, rules: Rules) -> CompiledPhrases:
        """Compile one list that no catalogue holds. For a thread."""
        return self._compile(rules)

    def install(self, compiled: CompiledCatalogue) -> None:
        """Put a compiled catalogue in force. Takes no time: one assignment."""
        self._installed = compiled

    def of(self, snapshot: PersonaSnapshot | None) -> CompiledPhrases:
        """Return the phrases in force for a persona; every turn asks, and no list is walked for the answer.

        Args:
            snapshot: the persona of the session, or None for the global phrases alone.
        """
        installed = self._installed
        if snapshot is None:
            return installed.without_persona
        if installed.catalogue.by_slug(snapshot.slug) is snapshot:
            return installed.by_slug[snapshot.slug]
        if (found := installed.retained.get(id(snapshot))) is not None:
            return found[1]
        rules = installed.catalogue.phrases + snapshot.phrases
        if (known := installed.by_rules.get(rules)) is not None:
            return known
        # Only for a snapshot that compile() was not given: a late reply is better than a banned phrase.
        logger.warning("phrases of persona %s compiled on the serving loop", snapshot.slug)
        return self._compile(rules)

    def _compile(self, rules: Rules) -> CompiledPhrases:
        automaton = PhraseAutomaton.build(rules, pause=_let_others_run)
        if self._tokenizer is None:
            return CompiledPhrases(automaton, {}, no_tokens_containing)
        bias = token_biases(self._tokenizer.text.encode, rules)
        if len(bias) > MAX_BIASED_TOKENS:
            logger.warning("%d biased tokens, only the first %d are used", len(bias), MAX_BIASED_TOKENS)
            bias = dict(list(bias.items())[:MAX_BIASED_TOKENS])
        if not rules:
            return CompiledPhrases(automaton, bias, no_tokens_containing)
        self._vocabulary = self._vocabulary or self._tokenizer.vocabulary()
        return CompiledPhrases(automaton, bias, self._vocabulary.tokens_containing(automaton))

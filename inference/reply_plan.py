"""The plan of one reply: how the text is drawn, where the reply ends, and the texts that it may not contain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference.engines.sampling import Sampling
from inference.phrases.automaton import Matcher, PhraseAutomaton
from inference.phrases.vocabulary import TokensContaining, no_tokens_containing


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """Sampling, limits and phrases of a reply.

    Args:
        request_id: unique in the process; each engine request appends a number.
        sampling: sampling parameters of every step.
        max_tokens: the limit of tokens that the reply keeps.
        automaton: the banned phrases.
        logit_bias: token id to bias, for every step.
        tokens_containing: returns the ids of the tokens whose own text contains a phrase.
        matchers: speaker labels and other texts that end the reply.
        cache_salt: separates the prefix cache of this key from others; None shares it.
        think_max_tokens: the limit of the reply's thoughts, where the model thinks.
        affinity: requests with the same key go to the same replica of the engine; None to the least loaded one.
        before: the end of the text that stands in the prompt as the reply's beginning; no phrase forms over the seam.
        json_schema: JSON text of the schema that the reply must follow. Generation does not go back in such a reply: a
            banned phrase is cut.
    """

    request_id: str
    sampling: Sampling
    max_tokens: int
    automaton: PhraseAutomaton
    logit_bias: Mapping[int, float]
    tokens_containing: TokensContaining = no_tokens_containing
    matchers: Sequence[Matcher] = ()
    cache_salt: str | None = None
    think_max_tokens: int = 512
    affinity: str | None = None
    before: str = ""
    json_schema: str | None = None

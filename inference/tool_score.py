"""The score of a model's tool decision: the probability of yes at the telling token."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from inference.engines.base import Delta
from inference.tool_call import decision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def telling_probability(before: str, delta: Delta, tokenizer: PreTrainedTokenizerBase) -> float | None:
    """Return the probability that the decision is yes, at the first token that settles it.

    Only tokens that settle the decision count: the sum over those of a yes, divided by the sum over both kinds.

    Args:
        before: the output before this delta, which settles nothing.
        delta: the tokens up to and including the telling one, with the probabilities of the likeliest tokens.
        tokenizer: of the engine.

    Returns:
        A number from 0 to 1; None where the engine reported no probabilities.
    """
    text = before
    for number, likely in enumerate(delta.logprobs):
        yes = no = 0.0
        for token, logprob in likely.items():
            wanted = decision(text + str(tokenizer.decode([token])))
            if wanted is True:
                yes += math.exp(logprob)
            elif wanted is False:
                no += math.exp(logprob)
        if number >= len(delta.token_ids):
            break
        text = before + str(tokenizer.decode(list(delta.token_ids[: number + 1])))
        if decision(text) is not None:
            return yes / (yes + no) if yes + no > 0 else None
    return None

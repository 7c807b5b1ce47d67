"""Perplexity on a text that every machine has: how much worse an export is than its source."""

from __future__ import annotations

import math
import re
from typing import Any

import torch

TOKENS = 2048
WINDOW = 512
# The help texts of Python's own standard library: English prose of some length, the same for every model.
TEXT = "pydoc_data.topics"


def held_out_text() -> str:
    """Return the prose of the standard library's help topics: paragraphs without code, tables and underlines."""
    from pydoc_data.topics import topics

    paragraphs = []
    for topic in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[topic]):
            text = " ".join(paragraph.split())
            if len(text) > 200 and not re.search(r"[|=*_~^{}<>]{2}|::", text) and paragraph == paragraph.lstrip(" "):
                paragraphs.append(text)
    return "\n\n".join(paragraphs)


def perplexity(model: Any, tokenizer: Any, tokens: int = TOKENS, window: int = WINDOW) -> float:
    """Return exp of the mean negative log likelihood of the held-out text.

    Args:
        model: a causal language model of transformers, on any device.
        tokenizer: its tokenizer.
        tokens: how many tokens of the text are read.
        window: tokens of one forward pass; each pass begins without context.
    """
    ids = tokenizer(held_out_text()[: tokens * 12], add_special_tokens=False)["input_ids"][:tokens]
    total, counted = 0.0, 0
    for begin in range(0, len(ids) - 1, window):
        piece = torch.tensor([ids[begin : begin + window]], device=model.device)
        if piece.shape[1] < 2:
            break
        with torch.no_grad():
            logits = model(input_ids=piece, use_cache=False).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, piece[0, 1:], reduction="sum")
        total += float(loss)
        counted += piece.shape[1] - 1
    return math.exp(total / counted)

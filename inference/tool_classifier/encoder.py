"""An optional sentence encoder, whose embedding of the last line joins the n-grams (``TOOL_ENCODER``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BATCH = 32
MAX_TOKENS = 128


class SentenceEncoder(Protocol):
    """Turns texts into vectors. Blocking: run it in a thread."""

    @property
    def name(self) -> str:
        """What a head trained with this encoder remembers."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of norm 1; shape (texts, dimensions)."""


class TransformersEncoder:
    """Any sentence-embedding model of the Hub or of a folder, by transformers on one processor core.

    The embedding is the mean over the tokens' last hidden states, as sentence-transformers computes its
    ``mean_tokens`` pooling.
    """

    def __init__(self, name: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(1)
        self._torch = torch
        self._name = name
        self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
        self._model: Any = AutoModel.from_pretrained(name).eval()

    @property
    def name(self) -> str:
        """The Hub id or path that the model was loaded from."""
        return self._name

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of norm 1; shape (texts, dimensions)."""
        rows = [self._batch(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        return np.concatenate(rows).astype(np.float32)

    def _batch(self, texts: Sequence[str]) -> NDArray[np.float32]:
        torch = self._torch
        batch = self._tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            hidden = self._model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        normed: NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=1).numpy()
        return normed


def load_encoder(name: str | None) -> SentenceEncoder | None:
    """The encoder that ``TOOL_ENCODER`` names; None where it names none. Blocks while the model is loaded.

    Raises:
        OSError: the model is not found. The message is transformers' own.
    """
    return TransformersEncoder(name) if name else None

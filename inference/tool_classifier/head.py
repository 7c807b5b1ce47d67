"""The head of the tool classifier: one linear layer over the features, as arrays and their metadata.

A head is stored as ``.npz`` and is read without pickle. A head of another feature version or another encoder is
refused: its weights would be applied to features that mean something else.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.tool_classifier.features import DIMENSIONS, FEATURE_VERSION, features

FORMAT = "yap-tool-head-1"
NO_TOOL = ""  # the class of a line that wants no tool
MAX_HEAD_BYTES = 64 * 1024 * 1024
MAX_CLASSES = 64
MAX_EMBEDDING = 8192


class HeadMismatch(ValueError):
    """A stored head cannot be used here. The message names the reason."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What the classifier decided for one line.

    Attributes:
        tool: name of the tool, or None for no tool.
        score: probability that some tool in force is wanted, 0 to 1.
        likeliest: the tool with the highest probability, whether or not the threshold is reached; None where no tool
            is in force.
    """

    tool: str | None
    score: float
    likeliest: str | None


@dataclass(frozen=True, slots=True)
class Head:
    """Calibrated multinomial logistic regression.

    Attributes:
        classes: :data:`NO_TOOL`, then the names of the tools.
        weights: shape (DIMENSIONS, classes), float32.
        embedding_weights: shape (embedding, classes), float32; the first axis is empty without an encoder.
        bias: shape (classes,), float32.
        threshold: probability of yes from which a tool is called, as training chose it.
        encoder: name of the sentence encoder, None for none.
        feature_version: :data:`inference.tool_classifier.features.FEATURE_VERSION` of the training.
        details: what training reports (counts, cross-validated figures); JSON values.
    """

    classes: tuple[str, ...]
    weights: NDArray[np.float32]
    embedding_weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    threshold: float
    encoder: str | None = None
    feature_version: int = FEATURE_VERSION
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tools(self) -> tuple[str, ...]:
        """The tools that this head knows."""
        return self.classes[1:]

    def knows(self, tools: Collection[str]) -> bool:
        """Whether every one of ``tools`` (at least one) is a class of this head."""
        return bool(tools) and set(tools) <= set(self.tools)

    def probabilities(
        self, text: str, earlier: Sequence[str] = (), embedding: NDArray[np.float32] | None = None
    ) -> NDArray[np.float64]:
        """The probability of each class; shape (classes,), sum 1.

        Args:
            text: the line to decide on.
            earlier: the lines before it, oldest first.
            embedding: of ``text``, by the encoder that the head was trained with; shape (embedding,), norm 1.

        Raises:
            HeadMismatch: the embedding is missing, or has another length.
        """
        indices, values = features(text, earlier)
        logits = values @ self.weights[indices].astype(np.float64) + self.bias
        if (0 if embedding is None else len(embedding)) != len(self.embedding_weights):
            raise HeadMismatch(f"the head takes an embedding of {len(self.embedding_weights)} numbers")
        if embedding is not None:
            logits = logits + embedding.astype(np.float64) @ self.embedding_weights
        return softmax(logits)

    def choose(
        self,
        text: str,
        earlier: Sequence[str] = (),
        *,
        tools: Collection[str] | None = None,
        threshold: float | None = None,
        embedding: NDArray[np.float32] | None = None,
    ) -> ToolChoice:
        """Decide which tool the line wants.

        Args:
            text: the line to decide on.
            earlier: the lines before it, oldest first.
            tools: the tools in force; others count as not wanted. None: all of the head's.
            threshold: probability of yes from which the tool is called; None: the head's own.
            embedding: see :meth:`probabilities`.
        """
        probabilities = self.probabilities(text, earlier, embedding)
        best, score = None, 0.0
        highest = -1.0
        for name, probability in zip(self.tools, probabilities[1:], strict=True):
            if tools is not None and name not in tools:
                continue
            score += float(probability)
            if probability > highest:
                best, highest = name, float(probability)
        limit = self.threshold if threshold is None else threshold
        return ToolChoice(best if best is not None and score >= limit else None, min(1.0, score), best)

    def to_bytes(self) -> bytes:
        """The head as the content of an ``.npz`` file: the rows of ``weights`` that are not all zero, as float16."""
        used = np.flatnonzero(np.abs(self.weights).max(axis=1) > 0).astype(np.uint32)
        meta = {
            "format": FORMAT,
            "feature_version": self.feature_version,
            "dimensions": DIMENSIONS,
            "encoder": self.encoder,
            "classes": list(self.classes),
            "threshold": self.threshold,
            "details": dict(self.details),
        }
        out = io.BytesIO()
        np.savez_compressed(
            out,
            meta=np.frombuffer(json.dumps(meta, ensure_ascii=False).encode(), dtype=np.uint8),
            used=used,
            weights=self.weights[used].astype(np.float16),
            embedding_weights=self.embedding_weights,
            bias=self.bias,
        )
        return out.getvalue()


def read_head(data: bytes, encoder: str | None = None) -> Head:
    """Read a stored head.

    Args:
        data: what :meth:`Head.to_bytes` returned.
        encoder: name of the encoder that this server runs, None for none.

    Raises:
        HeadMismatch: the data are damaged, or the head belongs to another feature version or encoder.
    """
    if len(data) > MAX_HEAD_BYTES:
        raise HeadMismatch(f"the head has {len(data)} bytes, at most {MAX_HEAD_BYTES} are read")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            meta = json.loads(bytes(arrays["meta"]).decode())
            if not isinstance(meta, dict) or meta.get("format") != FORMAT:
                raise HeadMismatch("the data are not a tool head of this format")
            _check_fit(meta, encoder)
            return _assemble(meta, {name: arrays[name] for name in ("used", "weights", "embedding_weights", "bias")})
    except HeadMismatch:
        raise
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise HeadMismatch(f"the data are not a tool head: {error}") from None


def _check_fit(meta: Mapping[str, Any], encoder: str | None) -> None:
    if meta["feature_version"] != FEATURE_VERSION or meta["dimensions"] != DIMENSIONS:
        raise HeadMismatch(
            f"the head was trained with feature version {meta['feature_version']}, this server has {FEATURE_VERSION}: "
            "train again"
        )
    if meta["encoder"] != encoder:
        raise HeadMismatch(
            f"the head was trained with encoder {meta['encoder'] or 'none'}, this server runs {encoder or 'none'} "
            "(TOOL_ENCODER): train again"
        )


def _assemble(meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Head:
    classes = tuple(str(name) for name in meta["classes"])
    used, weights, embedding, bias = (arrays[name] for name in ("used", "weights", "embedding_weights", "bias"))
    count = len(classes)
    threshold = float(meta["threshold"])
    if not 2 <= count <= MAX_CLASSES or classes[0] != NO_TOOL or len(set(classes)) != count:
        raise HeadMismatch("the head's classes are not usable")
    if weights.shape != (len(used), count) or bias.shape != (count,) or embedding.ndim != 2:
        raise HeadMismatch("the head's arrays do not fit each other")
    if embedding.shape[1] != count or len(embedding) > MAX_EMBEDDING or (len(used) and int(used.max()) >= DIMENSIONS):
        raise HeadMismatch("the head's arrays do not fit each other")
    if not all(np.isfinite(array).all() for array in (weights, bias, embedding)) or not math.isfinite(threshold):
        raise HeadMismatch("the head holds numbers that are not finite")
    dense = np.zeros((DIMENSIONS, count), dtype=np.float32)
    dense[used] = weights
    return Head(
        classes=classes,
        weights=dense,
        embedding_weights=embedding.astype(np.float32),
        bias=bias.astype(np.float32),
        threshold=threshold,
        encoder=meta["encoder"],
        feature_version=int(meta["feature_version"]),
        details=dict(meta.get("details", {})),
    )


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities along the last axis."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), dtype=np.float64)

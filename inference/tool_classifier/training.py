"""Train a head: logistic regression on the features, cross-validated by groups of similar lines, then calibrated.

scikit-learn and scipy are imported here and in :mod:`inference.tool_classifier.grouping` alone: a server that only
decides does not load them.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, diags_array, hstack, vstack
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from inference.tool_classifier.encoder import SentenceEncoder
from inference.tool_classifier.examples import Example
from inference.tool_classifier.features import DIMENSIONS, FEATURE_VERSION, features
from inference.tool_classifier.grouping import groups_of
from inference.tool_classifier.head import MAX_CLASSES, NO_TOOL, Head, softmax

FOLDS = 5
MIN_EXAMPLES = 4  # of each class: fewer cannot be cross-validated
MAX_FALSE_ALARMS = 0.05  # cross-validated, of the threshold that training chooses
INVERSE_REGULARIZATION = (
    20.0  # scikit-learn's C; 10, 20 and 30 are equal in grouped cross-validation, 1 and 3 are worse
)
TOLERANCE = 1e-5  # about 50 iterations; ten times more costs recall, ten times less gains nothing
RARITY_SCALE = 0.25  # keeps the values of rare features near 1
UNRELATED_HISTORY_WEIGHT = 0.3
_SEED = 20


class TrainingError(ValueError):
    """The examples do not suffice. The message names what is missing."""


@dataclass(frozen=True, slots=True)
class Figures:
    """How well decisions match the labels, as shares from 0 to 1.

    Attributes:
        accuracy: lines decided right, the tool's name included.
        recall: lines that want a tool for which that tool was chosen.
        false_alarms: lines that want none for which one was chosen.
    """

    accuracy: float
    recall: float
    false_alarms: float


def train(examples: Sequence[Example], encoder: SentenceEncoder | None = None) -> Head:
    """Train a head on labelled lines.

    Args:
        examples: every class needs :data:`MIN_EXAMPLES` lines. Lines without a group are grouped by similarity.
        encoder: adds its embedding of the last line to the features; None for none.

    Returns:
        The calibrated head. ``details`` holds ``examples`` (count per class), ``groups``, ``seconds``, and the
        cross-validated ``accuracy``, ``recall``, ``false_alarms`` and ``curve`` (threshold, recall, false alarms).

    Raises:
        TrainingError: there are too few lines of a class, or too many classes.
    """
    started = time.perf_counter()
    classes = _classes(examples)
    labels = np.array([classes.index(example.tool) for example in examples])
    groups = np.array(groups_of(examples))
    rows = _Rows.of(examples, _embed(examples, encoder))
    outside = _outside_logits(rows, labels, groups, len(classes))
    scale, shift = _calibration(outside, labels)
    probabilities = softmax(outside * scale + shift)
    threshold = _threshold(probabilities, labels)
    weights, bias = _fit(rows, labels, len(classes))
    figures = figures_at(probabilities, labels, threshold)
    details: dict[str, Any] = {
        "examples": {name or "none": int(count) for name, count in sorted(Counter(e.tool for e in examples).items())},
        "groups": len(set(groups.tolist())),
        "seconds": round(time.perf_counter() - started, 1),
        "accuracy": round(figures.accuracy, 4),
        "recall": round(figures.recall, 4),
        "false_alarms": round(figures.false_alarms, 4),
        "curve": _curve(probabilities, labels),
    }
    return Head(
        classes=classes,
        weights=(weights[:DIMENSIONS] * scale).astype(np.float32),
        embedding_weights=(weights[DIMENSIONS:] * scale).astype(np.float32),
        bias=(bias * scale + shift).astype(np.float32),
        threshold=threshold,
        encoder=encoder.name if encoder else None,
        feature_version=FEATURE_VERSION,
        details=details,
    )


def figures_at(probabilities: NDArray[np.float64], labels: NDArray[np.int64], threshold: float) -> Figures:
    """The figures of a threshold; ``probabilities`` has shape (lines, classes), class 0 is none."""
    chosen = np.where(1 - probabilities[:, 0] >= threshold, probabilities[:, 1:].argmax(axis=1) + 1, 0)
    wanted = labels > 0
    return Figures(
        accuracy=float((chosen == labels).mean()),
        recall=float((chosen == labels)[wanted].mean()) if wanted.any() else 1.0,
        false_alarms=float((chosen > 0)[~wanted].mean()) if (~wanted).any() else 0.0,
    )


def _classes(examples: Sequence[Example]) -> tuple[str, ...]:
    counts = Counter(example.tool for example in examples)
    tools = sorted(name for name in counts if name != NO_TOOL)
    if not tools:
        raise TrainingError("no example wants a tool")
    if len(tools) >= MAX_CLASSES:
        raise TrainingError(f"{len(tools)} tools; at most {MAX_CLASSES - 1} can be told apart")
    for name in (NO_TOOL, *tools):
        if counts[name] < MIN_EXAMPLES:
            raise TrainingError(f"{counts[name]} examples of {name or 'no tool'}; {MIN_EXAMPLES} are needed at least")
    return (NO_TOOL, *tools)


def _embed(examples: Sequence[Example], encoder: SentenceEncoder | None) -> NDArray[np.float32]:
    if encoder is None:
        return np.zeros((len(examples), 0), dtype=np.float32)
    return encoder.encode([example.text for example in examples])


def _matrix(examples: Sequence[Example], embeddings: NDArray[np.float32]) -> Any:
    starts, indices, values = [0], [], []
    for example in examples:
        found, weights = features(example.text, example.earlier)
        indices.append(found)
        values.append(weights)
        starts.append(starts[-1] + len(found))
    hashed = csr_matrix(
        (np.concatenate(values), np.concatenate(indices), starts), shape=(len(examples), DIMENSIONS), dtype=np.float64
    )
    hashed.sum_duplicates()
    return csr_matrix(hstack([hashed, csr_matrix(embeddings.astype(np.float64))]))


def _with_unrelated_history(examples: Sequence[Example]) -> list[Example]:
    """A copy of every line that has no lines before it, behind two random ones: most of what was said before a line
    does not matter, and few labelled lines show that. Without these copies any history raises false alarms."""
    chance = random.Random(_SEED)  # training must be reproducible; nothing secret is drawn  # nosec B311
    texts = [example.text for example in examples]
    return [
        example if example.earlier else replace(example, earlier=(chance.choice(texts), chance.choice(texts)))
        for example in examples
    ]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The training rows: every line alone, and every line behind unrelated lines; shape (lines, features) each."""

    alone: Any
    behind: Any

    @classmethod
    def of(cls, examples: Sequence[Example], embeddings: NDArray[np.float32]) -> _Rows:
        return cls(_matrix(examples, embeddings), _matrix(_with_unrelated_history(examples), embeddings))

    def take(self, positions: NDArray[np.int64]) -> _Rows:
        return _Rows(self.alone[positions], self.behind[positions])


def _fit(rows: _Rows, labels: NDArray[np.int64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of shape (features, classes) and bias of shape (classes,)."""
    matrix = csr_matrix(vstack([rows.alone, rows.behind]))
    sample_weights = np.repeat([1.0, UNRELATED_HISTORY_WEIGHT], len(labels))
    frequency = np.bincount(rows.alone.indices, minlength=matrix.shape[1])
    used = np.flatnonzero(np.bincount(matrix.indices, minlength=matrix.shape[1]))
    scale = np.log((1 + len(labels)) / (1 + frequency)) * RARITY_SCALE  # inverse document frequency
    scale[DIMENSIONS:] = 1.0  # of an embedding
    model = LogisticRegression(C=INVERSE_REGULARIZATION, tol=TOLERANCE, max_iter=200)
    model.fit(
        matrix[:, used] @ diags_array(scale[used]), np.concatenate([labels, labels]), sample_weight=sample_weights
    )
    weights = np.zeros((matrix.shape[1], count))
    bias = np.zeros(count)
    if count == 2:  # scikit-learn keeps one row for two classes: that of the second
        weights[used, 1] = model.coef_[0]
        bias[1] = model.intercept_[0]
    else:
        weights[used] = model.coef_.T
        bias[:] = model.intercept_
    return weights * scale[:, None], bias


def _outside_logits(
    rows: _Rows, labels: NDArray[np.int64], groups: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """The logits of every line by a model that saw no line of its group; shape (lines, classes)."""
    fewest = min(len(set(groups[labels == label].tolist())) for label in range(count))
    if fewest < 2:
        raise TrainingError("all examples of one tool, or of none, are alike: add lines that say the same differently")
    logits = np.zeros((len(labels), count))
    folds = StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=_SEED)
    for inside, outside in folds.split(np.zeros(len(labels)), labels, groups):
        if len(set(labels[inside].tolist())) < count:
            raise TrainingError("too few different examples of a tool: add lines that say the same differently")
        weights, bias = _fit(rows.take(inside), labels[inside], count)
        logits[outside] = rows.alone[outside] @ weights + bias
    return logits


def _calibration(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
    """A scale and one shift per class that make the probabilities of unseen lines right (Guo et al., 2017, "On
    Calibration of Modern Neural Networks": vector scaling with one common scale)."""

    def loss(parameters: NDArray[np.float64]) -> float:
        scale, shift = np.exp(parameters[0]), np.concatenate([[0.0], parameters[1:]])
        probabilities = softmax(logits * scale + shift)[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(probabilities, 1e-12)).mean() + 1e-3 * (parameters**2).sum())

    found = minimize(loss, np.zeros(logits.shape[1]), method="L-BFGS-B", bounds=[(-3, 3)] * logits.shape[1])
    return float(np.exp(found.x[0])), np.concatenate([[0.0], found.x[1:]])


def _threshold(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The threshold from 0.3 on with the best accuracy among those with at most :data:`MAX_FALSE_ALARMS`; the nearest
    to 0.5 where several are equal. Where none has so few, the one with the fewest."""
    steps = [(step / 100, figures_at(probabilities, labels, step / 100)) for step in range(30, 91)]
    fewest = min(figures.false_alarms for _, figures in steps)
    allowed = [(t, figures) for t, figures in steps if figures.false_alarms <= max(MAX_FALSE_ALARMS, fewest)]
    return max(allowed, key=lambda step: (step[1].accuracy, -abs(step[0] - 0.5)))[0]


def _curve(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> list[list[float]]:
    """(threshold, recall, false alarms) from 0.02 to 0.98."""
    rows = []
    for step in range(1, 50):
        figures = figures_at(probabilities, labels, step / 50)
        rows.append([step / 50, round(figures.recall, 4), round(figures.false_alarms, 4)])
    return rows

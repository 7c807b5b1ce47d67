"""Groups of similar lines, so that a line and its paraphrase are never on both sides of a cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from inference.tool_classifier.examples import Example
from inference.tool_classifier.features import normalize

SIMILARITY = 0.5  # cosine of TF-IDF vectors from which two lines share a group


def groups_of(examples: Sequence[Example]) -> list[int]:
    """A group number per example: lines of one named group share it, others by similarity.

    The first line of a group leads it; a later line joins the most similar leader (leader clustering, Hartigan 1975).
    """
    named: dict[str, int] = {}
    groups = [-1] * len(examples)
    unnamed: list[int] = []
    for position, example in enumerate(examples):
        if example.group:
            groups[position] = named.setdefault(example.group, len(named))
        else:
            unnamed.append(position)
    for position, leader in zip(unnamed, _similar([examples[i] for i in unnamed]), strict=True):
        groups[position] = len(named) + leader
    return groups


def _similar(examples: Sequence[Example]) -> list[int]:
    if not examples:
        return []
    texts = [" ".join([*example.earlier[-1:], example.text]) for example in examples]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True, preprocessor=normalize)
    matrix = vectors.fit_transform(texts)
    leaders: list[int] = []
    group = [0] * len(examples)
    for position in range(len(examples)):
        if leaders:
            likeness = (matrix[leaders] @ matrix[position].T).toarray().ravel()
            nearest = int(np.argmax(likeness))
            if likeness[nearest] >= SIMILARITY:
                group[position] = nearest
                continue
        leaders.append(position)
        group[position] = len(leaders) - 1
    return group

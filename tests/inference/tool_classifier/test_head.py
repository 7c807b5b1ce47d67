from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from inference.tool_classifier.features import DIMENSIONS, FEATURE_VERSION
from inference.tool_classifier.head import Head, HeadMismatch, read_head


def head(classes: tuple[str, ...] = ("", "look", "weather"), **changes: Any) -> Head:
    chance = np.random.default_rng(1)
    weights = np.zeros((DIMENSIONS, len(classes)), dtype=np.float32)
    weights[chance.integers(0, DIMENSIONS, 5000)] = chance.normal(size=(5000, len(classes)))
    fields = {
        "classes": classes, "weights": weights, "embedding_weights": np.zeros((0, len(classes)), np.float32),
        "bias": np.zeros(len(classes), np.float32), "threshold": 0.5, "details": {"recall": 0.9},
    }  # fmt: skip
    return Head(**{**fields, **changes})


def changed(data: bytes, **meta: Any) -> bytes:
    """The stored head with other metadata."""
    with np.load(io.BytesIO(data)) as arrays:
        found = dict(arrays)
    found["meta"] = np.frombuffer(json.dumps({**json.loads(bytes(found["meta"])), **meta}).encode(), np.uint8)
    out = io.BytesIO()
    np.savez(out, **found)
    return out.getvalue()


def test_a_stored_head_decides_as_before() -> None:
    one = head()
    other = read_head(one.to_bytes())
    assert (other.classes, other.threshold, other.details) == (one.classes, 0.5, {"recall": 0.9})
    for text in ("look at this", "hi", "wie ist das Wetter"):
        assert np.allclose(one.probabilities(text), other.probabilities(text), atol=2e-3)  # stored as float16


def test_probabilities_are_shares() -> None:
    assert head().probabilities("look").sum() == pytest.approx(1.0)


def test_only_tools_in_force_are_chosen() -> None:
    bias = np.array([0.0, 5.0, 9.0], np.float32)
    one = head(bias=bias, weights=np.zeros((DIMENSIONS, 3), np.float32))
    assert one.choose("x").tool == "weather"
    assert one.choose("x", tools={"look"}, threshold=0.01).tool == "look"
    assert one.choose("x", tools={"look"}).tool is None
    assert one.choose("x", tools=set()).likeliest is None
    assert one.knows({"look"})
    assert not one.knows({"look", "other"})
    assert not one.knows(set())


def test_the_threshold_is_reached_by_its_own_value() -> None:
    one = head(("", "look"), weights=np.zeros((DIMENSIONS, 2), np.float32))
    assert one.choose("x", threshold=0.5).tool == "look"
    assert one.choose("x", threshold=0.51).tool is None
    assert one.choose("x").score == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"feature_version": FEATURE_VERSION + 1}, "feature version"),
        ({"dimensions": 5}, "feature version"),
        ({"encoder": "all-MiniLM-L6-v2"}, "all-MiniLM-L6-v2"),
        ({"format": "else"}, "not a tool head"),
        ({"classes": ["look", ""]}, "classes"),
        ({"classes": [""]}, "classes"),
        ({"classes": ["", "look"]}, "fit"),
        ({"threshold": None}, "not a tool head"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_with_the_reason(meta: dict[str, Any], reason: str) -> None:
    with pytest.raises(HeadMismatch, match=reason):
        read_head(changed(head().to_bytes(), **meta))


def test_a_head_of_another_encoder_is_refused() -> None:
    with pytest.raises(HeadMismatch, match="minilm"):
        read_head(head(encoder="minilm").to_bytes(), encoder=None)
    with pytest.raises(HeadMismatch, match="minilm"):
        read_head(head().to_bytes(), encoder="minilm")
    with pytest.raises(HeadMismatch, match="embedding"):
        head().probabilities("x", embedding=np.ones(4, np.float32))


@pytest.mark.parametrize("data", [b"", b"PK", b"nonsense" * 100, head().to_bytes()[:5000]])
def test_damaged_data_are_refused(data: bytes) -> None:
    with pytest.raises(HeadMismatch):
        read_head(data)


def test_no_pickle_is_read() -> None:
    out = io.BytesIO()
    np.savez(out, meta=np.array([{"format": "yap-tool-head-1"}], dtype=object))
    with pytest.raises(HeadMismatch):
        read_head(out.getvalue())


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(HeadMismatch, match="finite"):
        read_head(head(bias=np.array([0.0, np.nan, 0.0], np.float32)).to_bytes())

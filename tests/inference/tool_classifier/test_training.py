from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.tool_classifier.examples import Example, earlier_lines, example_of
from inference.tool_classifier.head import read_head
from personas.tool_files import LabelledLine

pytestmark = pytest.mark.thorough  # scikit-learn takes a second to import, and training one more
LOOK = [
    f"{verb} {thing}" for verb in ("look at", "check", "read") for thing in ("my screen", "this page", "that photo")
]
RAIN = [
    f"{start} {place}" for start in ("will it rain in", "weather in") for place in ("Rome", "Bonn", "Oslo", "Paris")
]
NONE = [f"i {verb} {thing}" for verb in ("like", "hate", "bought") for thing in ("bread", "cats", "music", "you")]


def lines() -> list[Example]:
    both = [(text, "look") for text in LOOK] + [(text, "weather") for text in RAIN] + [(text, "") for text in NONE]
    return [Example(text, tool, group=text) for text, tool in both]


class LengthEncoder:
    """An encoder of two numbers, without a model."""

    name = "length"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[1.0, len(text) / 100] for text in texts], dtype=np.float32)


def test_three_classes_are_told_apart() -> None:
    from inference.tool_classifier.training import train

    head = train(lines())
    assert head.classes == ("", "look", "weather")
    assert head.choose("look at this photo", threshold=0.4).tool == "look"
    assert head.choose("will it rain in Madrid", threshold=0.4).tool == "weather"
    assert head.choose("i like dogs", threshold=0.5).tool is None


def test_training_is_reproducible() -> None:
    from inference.tool_classifier.training import train

    one, other = train(lines()), train(lines())
    assert np.allclose(one.weights, other.weights)
    assert one.threshold == other.threshold


def test_what_training_reports() -> None:
    from inference.tool_classifier.training import train

    details = train(lines()).details
    assert details["examples"] == {"look": 9, "none": 12, "weather": 8}
    assert 0 <= details["false_alarms"] <= 1
    thresholds = [row[0] for row in details["curve"]]
    assert thresholds == sorted(thresholds)
    recalls = [row[1] for row in details["curve"]]
    assert recalls[0] >= recalls[-1], "a higher threshold never finds more"


def test_an_encoder_joins_the_features() -> None:
    from inference.tool_classifier.training import train

    head = train(lines(), LengthEncoder())
    assert (head.encoder, head.embedding_weights.shape) == ("length", (2, 3))
    again = read_head(head.to_bytes(), encoder="length")
    assert again.choose("look", embedding=LengthEncoder().encode(["look"])[0]).score > 0


@pytest.mark.parametrize(
    ("examples", "reason"),
    [
        ([], "no example wants"),
        ([Example("a")] * 9, "no example wants"),
        ([Example(f"line {n}") for n in range(9)] + [Example("x", "look")], "1 examples of look"),
        ([Example(t, "look", group=t) for t in LOOK], "0 examples of no tool"),
        ([Example("a", group=str(n)) for n in range(9)] + [Example("same", "look", group="one")] * 9, "alike"),
    ],
)
def test_too_few_examples_are_refused_with_the_reason(examples: list[Example], reason: str) -> None:
    from inference.tool_classifier.training import TrainingError, train

    with pytest.raises(TrainingError, match=reason):
        train(examples)


def test_similar_lines_share_a_group() -> None:
    from inference.tool_classifier.grouping import groups_of

    texts = ["look at my screen please", "please look at my screen", "tell me a joke", "tell me another joke", "hi"]
    first, second, third, fourth, fifth = groups_of([Example(text) for text in texts])
    assert first == second
    assert third == fourth
    assert len({first, third, fifth}) == 3
    named = groups_of([Example("a", group="x"), Example("quite different", group="x"), Example("a")])
    assert named[0] == named[1] != named[2]


def test_speakers_labels_are_no_part_of_earlier_lines() -> None:
    history = "User: look\nAssistant: at what?\nand why\nuser:  at me "
    assert earlier_lines(history) == ("look", "at what? and why", "at me")
    assert example_of(LabelledLine("x", "look", history, "g")) == Example("x", "look", earlier_lines(history), "g")

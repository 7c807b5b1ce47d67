"""The demo's tool: the files that ship are the train part of the labelled lines, and the head decides well."""

from __future__ import annotations

import re

import pytest
from django.core.management import call_command

from inference.tool_classifier.evaluation import Outcome, confusion, report, summarize, worst_mistakes
from inference.tool_classifier.examples import example_of
from inference.tool_classifier.features import normalize
from inference.tool_classifier.head import Head, read_head
from personas.selectors import load_catalogue
from personas.tool_files import LabelledLine, dump_csv, read_lines
from personas.tool_models import ToolExample, ToolHead
from yapserver.env import BASE_DIR

LINES = BASE_DIR / "tests" / "data" / "tool_lines.csv"
FRESH = BASE_DIR / "tests" / "data" / "tool_lines_fresh.csv"
NEARLY_EQUAL = 0.8  # cosine
DEMO = BASE_DIR / "personas" / "demo_tool"


def lines(split: str) -> list[LabelledLine]:
    return [line for line in read_lines(LINES.read_text(), LINES.name) if line.split == split]


def words(text: str) -> str:
    """The words of a line in the form that features are taken from."""
    return " ".join(re.findall(r"\w+", normalize(text)))


@pytest.fixture(scope="module")
def head() -> Head:
    return read_head((DEMO / "head.npz").read_bytes())


def outcomes(head: Head, labelled: list[LabelledLine]) -> list[Outcome]:
    found = []
    for line in labelled:
        example = example_of(line)
        choice = head.choose(example.text, example.earlier)
        found.append(Outcome(example, choice.tool or "", choice.score, 0.1))
    return found


def test_the_set_is_large_and_its_parts_share_no_group() -> None:
    train, heldout = lines("train"), lines("heldout")
    assert len(train) >= 800
    assert len(heldout) >= 250
    assert not {line.group for line in train} & {line.group for line in heldout}
    assert all(line.group for line in train + heldout)


@pytest.mark.thorough
def test_no_train_line_is_nearly_one_that_measures() -> None:
    """Equal words, or character n-grams so alike that one line is a spelling of the other."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    train = lines("train")
    unseen = lines("heldout") + read_lines(FRESH.read_text(), FRESH.name)
    alone = {words(line.text) for line in unseen if not line.history}
    assert [line.text for line in train if not line.history and words(line.text) in alone] == []
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True, preprocessor=words)
    vectors.fit([line.text for line in train + unseen])
    likeness = vectors.transform([line.text for line in train]) @ vectors.transform([line.text for line in unseen]).T
    nearest = likeness.max(axis=1).toarray().ravel()
    assert [line.text for line, value in zip(train, nearest, strict=True) if value >= NEARLY_EQUAL] == []


def test_the_demos_examples_are_the_train_part() -> None:
    assert (DEMO / "examples.csv").read_text() == dump_csv(lines("train"))


def test_the_head_decides_lines_it_has_not_seen(head: Head) -> None:
    figures = summarize(outcomes(head, lines("heldout")))
    assert figures.accuracy >= 0.92
    assert figures.recall is not None
    assert figures.recall >= 0.90
    assert figures.false_alarms is not None
    assert figures.false_alarms <= 0.05


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hi", False),
        ("what's on my screen?", True),
        ("I looked at the screen yesterday", False),
        ("look at my screen", True),
        ("please don't look at my screen", False),
        ("schau mal auf meinen bildschirm", True),
        ("my screen is broken", False),
    ],
)
def test_a_newcomers_lines(head: Head, text: str, wanted: bool) -> None:
    assert (head.choose(text).tool == "take_screenshot") is wanted


@pytest.mark.django_db
def test_a_new_database_has_the_demos_tool_in_force() -> None:
    catalogue = load_catalogue()
    assert [tool.name for tool in catalogue.tools] == ["take_screenshot"]
    assert catalogue.tool_head is not None
    assert read_head(catalogue.tool_head.data).tools == ("take_screenshot",)
    assert ToolExample.objects.count() == len(lines("train"))
    assert ToolHead.objects.get().recall is not None


@pytest.mark.thorough
@pytest.mark.django_db
def test_the_command_measures_the_head_in_force(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    call_command("evaluate_tool", LINES, split="heldout", persona="mia", by="classifier", plot=f"{tmp_path}/curve.png")
    out = capsys.readouterr().out
    for part in ("classifier of take_screenshot", "accuracy", "false alarms", "p95", "calibration", "worst mistakes"):
        assert part in out


def test_a_report_counts_what_was_decided() -> None:
    right, late = example_of(LabelledLine("look", "look")), example_of(LabelledLine("hi"))
    found = [Outcome(right, "look", 0.9, 1.0), Outcome(late, "look", 0.7, 3.0), Outcome(right, "", 0.2, 2.0)]
    figures = summarize(found)
    assert figures.accuracy == pytest.approx(1 / 3)
    assert (figures.recall, figures.false_alarms) == (0.5, 1.0)
    assert (figures.p50, figures.p95) == (2.0, 3.0)
    assert confusion(found) == {("look", "look"): 1, ("", "look"): 1, ("look", ""): 1}
    assert [o.score for o in worst_mistakes(found)] == [0.2, 0.7]
    assert "look → none (0.20) look" in report(found)

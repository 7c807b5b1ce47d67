"""The short form of the benchmark on real servers: checks what is measured, not how fast anything is."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests.benchmarks import serving
from tests.benchmarks.figures import Results
from tests.benchmarks.goals import said_and_cached

SHORT = serving.SHORT


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    """Run the short form of all scenarios once."""
    out = tmp_path_factory.mktemp("benchmark")
    return serving.main(["--short", "--out", str(out)]), out


pytestmark = pytest.mark.engine


def test_every_system_did_everything(run: tuple[Results, Path]) -> None:
    results, _ = run
    assert results.systems() == list(serving.SYSTEMS)
    for system in serving.SYSTEMS:
        for clients in SHORT.clients:
            (load,) = results.of("load", system, clients)
            assert load.numbers["frames"] > 0
            assert len(load.numbers["gap"]) < load.numbers["frames"]
            assert load.numbers["cpu_us_per_frame"] > 0
        (first,) = results.of("first_token", system)
        assert len(first.numbers["ttft"]) == SHORT.first_tokens
        assert min(first.numbers["ttft"]) > 0
        assert len(results.samples("crowd", system, "ttft")) == SHORT.crowd_repeat


def test_all_are_asked_the_same(run: tuple[Results, Path]) -> None:
    """The prompt length in tokens is equal for raw's ids, vLLM's template and Yap's joined ids."""
    results, _ = run
    asked = {system: results.of("prompt", system)[0].numbers["prompt_tokens"] for system in serving.SYSTEMS}
    assert len({tuple(lengths) for lengths in asked.values()}) == 1, asked
    assert min(asked["raw"]) > 100


def test_yap_keeps_its_word(run: tuple[Results, Path]) -> None:
    results, _ = run
    for system in ("yap-daphne", "yap-uvicorn"):
        assert results.of("late_frames", system)[0].numbers["late_frames"] == 0
        assert results.share("slot", system, "tokens_after", 1.0) < SHORT.reply_tokens / 4  # most of the reply was left
        rows = results.of("conversation", system)[0].numbers["rows"]
        assert len(rows) == SHORT.conversation_turns
        assert any(later["prompt"] < earlier["prompt"] for earlier, later in pairwise(rows))
        assert said_and_cached(rows)[0] > 0.5
        storm = results.of("storm", system)[0].numbers
        knocks = SHORT.storm_handshakes
        assert storm["answers"] == {"pong": knocks - knocks // 4, "authentication_failed": knocks // 4}
        assert storm["storm_gap"]


def test_what_it_leaves_can_be_read(run: tuple[Results, Path]) -> None:
    _, out = run
    report = (out / "report.md").read_text()
    for title in ("Goals", "First token, one client", "Cancelling", "A long conversation", "Many connections"):
        assert f"## {title}" in report
    cells = json.loads((out / "results.json").read_text())["cells"]
    assert {cell["system"] for cell in cells} == set(serving.SYSTEMS)
    pictures = sorted(out.glob("*.png"))
    assert len(pictures) == 7
    assert all(picture.read_bytes().startswith(b"\x89PNG") and f"]({picture.name})" in report for picture in pictures)

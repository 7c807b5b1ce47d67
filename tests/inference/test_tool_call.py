from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.tool_call import decision, parse_calls

CALL = {"name": "take_screenshot", "arguments": {}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", None),
        (" \n", None),
        ("[", None),
        ("[ \n", None),
        ("[]", False),
        ("[ ]", False),
        ("[{", True),
        (' [\n {"na', True),
        ("[1", False),
        ("[[", False),
        ('["', False),
        ("{", False),
        ("no", False),
        ("null", False),
    ],
)
def test_the_decision_at_its_telling_token(text: str, told: bool | None) -> None:
    assert decision(text) is told


@given(st.sampled_from(["[]", json.dumps([CALL]), "[ {", "no", "  [\n]"]), st.integers(0, 30))
def test_a_decision_is_never_taken_back(text: str, cut: int) -> None:
    assert decision(text[:cut]) in (None, decision(text))


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (json.dumps([CALL]), [CALL]),
        (' [{"name":"a"}] ', [{"name": "a", "arguments": {}}]),
        (
            '[{"name":"a","arguments":{"x":[1]}},{"name":"b","arguments":{}}]',
            [{"name": "a", "arguments": {"x": [1]}}, {"name": "b", "arguments": {}}],
        ),
        ("[]", []),
        ("", []),
        ("[{", []),
        ('[{"name":"take_screenshot","argum', []),
        ('{"name":"a"}', []),
        ('[{"name":5}]', []),
        ('[{"arguments":{}}]', []),
        ('[{"name":"a","arguments":[]}]', []),
        ('[{"name":"a","arguments":null}]', []),
        ('[{"name":"a"}, 5]', []),
        ('["a"]', []),
        ("[" * 5000, []),
    ],
)
def test_calls_of_a_finished_output(text: str, calls: list[dict[str, Any]]) -> None:
    assert parse_calls(text) == calls


@given(st.text())
def test_no_output_makes_parsing_fail(text: str) -> None:
    assert isinstance(parse_calls(text), list)

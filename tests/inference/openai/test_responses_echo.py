"""What a response repeats of its request is valid in OpenAI's types, whatever the client sent."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response

from inference.openai.responses_echo import echoed_choice, echoed_format, echoed_metadata, echoed_tools
from inference.openai.responses_frames import SOCKET_EVENTS, ResponseFrames, ResponseHead
from tests.inference.openai.test_responses_frames import read

FLAT = {"type": "function", "name": "look", "description": "d", "parameters": {"type": "object"}, "strict": True}
NESTED = {"type": "function", "function": {"name": "look", "description": "d", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tools": [FLAT, NESTED, {"type": "web_search"}, "x", 4], "tool_choice": "required"},
        {"tools": [{"type": "function", "name": "a", "parameters": 4, "strict": "x", "description": 3}]},
        {"tools": "x", "tool_choice": {"type": "function", "name": "look"}, "metadata": 4, "text": 4},
        {"tool_choice": {"type": "function", "function": {"name": "look"}}, "text": {"format": 3}},
        {"tool_choice": {"type": "allowed_tools"}, "text": {"format": {"type": "json_object"}}},
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
        {"text": {"format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "metadata": {"a": "b", "c": 3}},
    ],
)
def test_the_echo_is_valid(body: dict[str, Any]) -> None:
    head = ResponseHead(
        "mia",
        tools=echoed_tools(body),
        tool_choice=echoed_choice(body),
        text_format=echoed_format(body),
        metadata=echoed_metadata(body),
    )
    for event in read(ResponseFrames(head, SOCKET_EVENTS).ack()):
        Response.model_validate(event["response"], strict=True)


def test_function_tools_are_echoed_flat() -> None:
    assert [tool["name"] for tool in echoed_tools({"tools": [FLAT, NESTED, {"type": "web_search"}]})] == ["look"] * 2
    assert echoed_tools({"tools": [FLAT]}) == [FLAT]


def test_a_choice_is_echoed_flat() -> None:
    assert echoed_choice({"tool_choice": {"type": "function", "function": {"name": "look"}}}) == {
        "type": "function", "name": "look"
    }  # fmt: skip
    assert echoed_choice({"tool_choice": "none"}) == "none"
    assert echoed_choice({"tool_choice": "whatever"}) == "auto"


def test_metadata_is_echoed_as_far_as_it_is_valid() -> None:
    assert echoed_metadata({"metadata": {"a": "b", "c": 3, "d": "x" * 600}}) == {"a": "b"}

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.prompting.tool_definitions import (
    MAX_CALLS,
    NO_ARGUMENTS,
    ToolDefinition,
    definitions,
    grammar,
    grammar_of,
    grammar_with_stored,
)
from inference.prompting.tool_prompt import DEFAULT_TOOL_PROMPT, prompt_of_tools, split_examples
from personas.tool_snapshot import ToolSnapshot

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SHOT = {"name": "take_screenshot", "arguments": {}}


def test_the_values_of_arguments_are_no_tools() -> None:
    prompt = 'User: hi Bob\nAssistant: [{"name": "greet", "arguments": {"name": "Bob"}}]'
    assert grammar_of(prompt).names == {"greet"}
    (greet,) = definitions(prompt)
    assert greet.arguments["properties"] == {"name": {"type": "string"}}
    assert greet.arguments["required"] == ["name"]


@pytest.mark.parametrize(
    "prompt",
    [
        json.dumps([{"name": "weather", "description": "Tells it.", "parameters": CITY}]),
        "Tools: " + json.dumps({"type": "function", "function": {"name": "weather", "parameters": CITY}}) + " Go.",
        json.dumps([{"type": "function", "function": {"name": "weather", "parameters": CITY}}], indent=2),
        "<tools>\n" + json.dumps({"name": "weather", "parameters": CITY}) + "\n</tools> {{user}} {not json} [1, ",
    ],
)
def test_definitions_of_model_cards_and_of_openai_are_read(prompt: str) -> None:
    (weather,) = definitions(prompt)
    assert weather.name == "weather"
    assert weather.has_arguments
    assert dict(weather.arguments) == {"additionalProperties": False, **CITY}


def test_a_tool_that_shows_no_arguments_has_none() -> None:
    assert grammar_of(DEFAULT_TOOL_PROMPT).tools == (ToolDefinition("take_screenshot", NO_ARGUMENTS),)
    for parameters in ({}, {"type": "object"}, {"type": "object", "properties": {}}, None):
        (tool,) = definitions(json.dumps({"name": "a", "parameters": parameters}))
        assert tool.arguments == NO_ARGUMENTS
    assert definitions('Call {"name": "a", "arguments": ...} if asked.') == [ToolDefinition("a", NO_ARGUMENTS)]


def test_arguments_of_a_call_are_held_to_that_tools_schema() -> None:
    two = json.dumps([{"name": "weather", "parameters": CITY}, {"name": "look", "parameters": {}}])
    schema = json.loads(grammar_of(two).schema)
    look, weather = schema["items"]["anyOf"]
    assert look["properties"] == {"name": {"enum": ["look"]}, "arguments": NO_ARGUMENTS}
    assert weather["properties"]["arguments"]["properties"] == CITY["properties"]
    assert "minItems" not in schema
    assert json.loads(grammar_of(two).schema_of_yes)["minItems"] == 1


def test_one_tool_with_arguments_may_be_called_more_than_once() -> None:
    assert grammar_of(json.dumps({"name": "weather", "parameters": CITY})).max_calls == MAX_CALLS
    assert grammar_of(DEFAULT_TOOL_PROMPT).max_calls == 1
    assert grammar_of("Decide as you like.").max_calls == MAX_CALLS
    assert json.loads(grammar_of("Decide as you like.").schema)["items"]["properties"]["name"]["type"] == "string"


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("[{", [SHOT]),
        (' [ {"na', [SHOT]),
        ('[{"name": "take_s', [SHOT]),
        ('[{"name": "take_screenshot", "arguments": {}}', [SHOT]),
        ('[{"name": "take_screenshot", "arguments": {}}]', [SHOT]),
    ],
)
def test_a_forced_call_is_known_at_its_telling_token(text: str, calls: list[Any]) -> None:
    assert grammar_of(DEFAULT_TOOL_PROMPT).settled(text) == calls


def test_a_call_that_is_not_forced_stays_open() -> None:
    tools = [ToolDefinition("look", NO_ARGUMENTS), ToolDefinition("lock", NO_ARGUMENTS)]
    both = grammar(tools, max_calls=1)
    assert both.settled("[{") is None
    assert both.settled('[{"name": "lo') is None
    assert both.settled('[{"name": "loc') == [{"name": "lock", "arguments": {}}]
    twice = grammar(tools)
    assert twice.settled('[{"name": "lock"') is None, "another call may follow"
    first = '[{"name": "lock", "arguments": {}}, {"name": "loo'
    assert twice.settled(first) == [{"name": "lock", "arguments": {}}, {"name": "look", "arguments": {}}]
    weather = grammar([ToolDefinition("weather", {"additionalProperties": False, **CITY})], max_calls=1)
    assert weather.settled('[{"name": "weather", "arguments": {"city": "Bonn"') is None
    assert weather.settled('[{"name": "weather", "arguments": {"city": "Bonn"}}') == [
        {"name": "weather", "arguments": {"city": "Bonn"}}
    ]


@given(st.integers(1, 60))
def test_a_settled_call_is_the_one_that_the_model_would_have_written(cut: int) -> None:
    tools = [ToolDefinition(name, NO_ARGUMENTS) for name in ("take_screenshot", "take_note", "stop")]
    for tool in tools:
        calls = [{"name": tool.name, "arguments": {}}]
        whole = json.dumps(calls)
        settled = grammar(tools, max_calls=1).settled(whole[: max(2, cut)])
        assert settled in (None, calls)


@given(st.text(alphabet='[]{}":, namearguments\\x', max_size=300))
def test_no_prompt_makes_reading_fail(prompt: str) -> None:
    grammar_of(prompt)
    split_examples(prompt)


def test_a_prompt_of_brackets_is_read_in_no_time() -> None:
    assert definitions("[" * 30_000) == []
    assert definitions('{"a":' * 10_000) == []


def test_stored_arguments_join_a_prompt_that_shows_none() -> None:
    stored = (ToolSnapshot("look", parameters=json.dumps(CITY)),)
    prompt = 'Call [{"name": "look", "arguments": {}}] if asked.'
    (look,) = grammar_with_stored(prompt, stored).tools
    assert look.has_arguments
    assert grammar_with_stored(prompt, ()).tools == (ToolDefinition("look", NO_ARGUMENTS),)


def test_a_prompt_of_stored_tools_defines_them() -> None:
    tools = (ToolSnapshot("look", "Looks."), ToolSnapshot("weather", "Tells it.", json.dumps(CITY)))
    look, weather = grammar_of(prompt_of_tools(tools)).tools
    assert (look.name, look.has_arguments, look.description) == ("look", False, "Looks.")
    assert (weather.name, weather.has_arguments) == ("weather", True)


def test_a_line_behind_the_examples_is_an_instruction() -> None:
    prompt = "Decide.\n\nUser: hi\nAssistant: []\nUser: look\nAssistant: [\n{}\n]\nAnswer with JSON only."
    instructions, examples = split_examples(prompt)
    assert instructions == "Decide.\nAnswer with JSON only.\n\n"
    assert [(e.user, e.reply) for e in examples] == [("hi", "[]"), ("look", "[\n{}\n]")]
    assert split_examples(DEFAULT_TOOL_PROMPT)[0].endswith("answer [].\n\n")


@pytest.mark.parametrize("piece", ["[1, ", "[1,", '{"a":', '["x", ', '{"name": "a", "parameters": ', "[" + " " * 60])
def test_a_prompt_of_brackets_is_read_at_once(piece: str) -> None:
    prompt = piece * (34_000 // len(piece))
    began = time.process_time()
    assert len(definitions(prompt)) <= 1
    assert time.process_time() - began < 0.06
    found = definitions('{"name": "look", "arguments": {"at": "sky"}} ' + prompt)
    assert "look" in {tool.name for tool in found}

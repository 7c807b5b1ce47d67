"""Responses requests as items, and items as a prompt."""

from __future__ import annotations

from typing import Any

import pytest

from inference.openai.errors import OpenAIError
from inference.openai.requests import Ask
from inference.openai.responses_requests import Item, decode_items, decode_responses
from inference.prompting.history import ExchangeText
from tests.fakes.serving import RULES


def ask(**body: Any) -> Ask:
    request = decode_responses(body)
    return request.ask(request.items, RULES)


def test_a_string_is_one_user_message() -> None:
    assert decode_responses({"input": "hi"}).items == (Item("user", "hi"),)


def test_messages_with_and_without_a_type_in_strings_and_parts() -> None:
    items = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "Hello", "annotations": []}]},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_image", "image_url": "x"}]},
    ]  # fmt: skip
    assert decode_items(items, "input") == (
        Item("system", "Be kind."), Item("user", "hi"), Item("assistant", "Hello"), Item("user", "a\n[image]")
    )  # fmt: skip


def test_a_conversation_becomes_a_prompt() -> None:
    said = [("developer", "Be kind."), ("user", "hi"), ("assistant", "Hello"), ("user", "and?")]
    prompt = ask(instructions="Be brief.", input=[{"role": role, "content": text} for role, text in said]).prompt
    assert prompt.system == "Be brief.\n\nBe kind."
    assert prompt.exchanges == (ExchangeText("hi", "Hello"),)
    assert prompt.user == "and?"


def test_a_last_message_of_the_assistant_is_finished_and_the_character_speaks_once_more() -> None:
    prompt = ask(input=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello"}]).prompt
    assert prompt.exchanges == (ExchangeText("hi", "Hello"),)
    assert (prompt.user, prompt.prefill) == (None, None)


def test_a_result_is_read_with_the_functions_name_and_reasoning_is_left_out() -> None:
    items = [
        {"role": "user", "content": "what is there?"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at":"it"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "a cat"}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    ]
    assert decode_items(items, "input")[1] == Item("call", '{"at":"it"}', "call_1", "look")
    prompt = ask(input=items).prompt
    assert prompt.user is not None
    assert prompt.user.startswith("what is there?")
    assert "look" in prompt.user
    assert "a cat" in prompt.user


def test_a_call_without_result_and_a_result_without_call_are_tolerated() -> None:
    orphan = {"type": "function_call", "call_id": "call_2", "name": "look", "arguments": None}
    later = [{"role": "user", "content": "look!"}, orphan, {"role": "user", "content": "never mind"}]
    assert ask(input=later).prompt.user == "look!\nnever mind"
    result = {"type": "function_call_output", "call_id": "call_9", "output": "a cat"}
    assert "a cat" in (ask(input=[result]).prompt.user or "")


def test_tools_format_limit_and_sampling_are_read() -> None:
    tool = {"type": "function", "name": "look", "description": "d", "parameters": {"type": "object"}, "strict": True}
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    found = ask(
        input="hi", tools=[tool, {"type": "web_search"}], tool_choice={"type": "function", "name": "look"},
        max_output_tokens=20, temperature=0, min_p=0.1,
        text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}},
    )  # fmt: skip
    assert found.tools is not None
    assert (sorted(found.tools.grammar.names), found.tools.required) == (["look"], True)
    assert found.json_schema == '{"type":"object","properties":{"a":{"type":"string"}}}'
    assert found.sampling.max_tokens == 20
    assert found.sampling.overrides == {"temperature": 0.2, "min_p": 0.1}


def test_null_is_absent_and_unknown_fields_are_ignored() -> None:
    names = ("instructions", "previous_response_id", "store", "stream", "tools", "tool_choice", "text", "metadata")
    request = decode_responses({"input": "hi", "frobnicate": 1, **dict.fromkeys(names)})
    assert request.store
    assert not request.stream
    assert request.generate
    assert request.ask(request.items, RULES).tools is None


@pytest.mark.parametrize("body", [{"generate": False}, {"prompt_cache_options": {"prewarm": True}}])
def test_a_warm_up_is_asked_in_two_ways(body: dict[str, Any]) -> None:
    assert not decode_responses({"input": [], **body}).generate


def test_without_a_user_message_the_character_speaks_first() -> None:
    assert ask(input=[]).prompt.user is None
    assert ask(instructions="Greet the user.").prompt.system == "Greet the user."
    assert decode_responses({"previous_response_id": "resp_1"}).items == ()


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": 3}, "input", "invalid_type"),
        ({"input": ["hi"]}, "input[0]", "invalid_type"),
        ({"input": [{"role": "narrator", "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": "user", "content": {"text": "x"}}]}, "input[0].content", "invalid_value"),
        ({"input": [{"type": "function_call", "name": "x"}]}, "input[0].call_id", "invalid_type"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id", "invalid_type"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", "unsupported_parameter"),
        ({"input": "x", "previous_response_id": 4}, "previous_response_id", "invalid_type"),
        ({"input": "x", "instructions": 4}, "instructions", "invalid_type"),
        ({"input": "x", "conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"input": "x", "stream_id": "s" * 257}, "stream_id", "invalid_stream_id"),
        ({"input": [{"role": "user", "content": "x"}] * 10_001}, "input", "array_above_max_length"),
    ],
)
def test_what_can_never_work_is_refused_with_the_field_and_a_code(body: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(OpenAIError) as caught:
        decode_responses(body)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)

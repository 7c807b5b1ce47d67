"""Tools of a request, structured replies, text completions and tabby's endpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from inference.engines.base import EngineRole, GenerationRequest, SchemaRefused
from inference.openai.errors import OpenAIError
from inference.openai.request_tools import decode_tools, self_contained
from inference.prompting.json_schemas import SchemaBudget
from personas.snapshot import PhraseRule
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import UNLIMITED, catalogue
from tests.inference.openai.exchange import HI, KEY, SAID, surface
from tests.inference.session_lines import held, text_of

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/City"}},
            "required": ["city"],
            "$defs": {"City": {"type": "string"}},
        },
        "strict": True,
    },
}
CALL = '[{"name": "get_weather", "arguments": {"city": "oh honey Paris"}}]'


def tool_engine(reply: str = CALL) -> FakeEngine:
    return FakeEngine(EngineRole.TOOL, lambda request: reply)


async def test_a_yes_is_a_call_and_the_reply_is_not_said() -> None:
    chat, lists = held(0), catalogue(phrases=(PhraseRule("oh honey "),))
    async with surface(chat, tool_engine(), catalogue=lists) as served:
        reply = await served.chat_completion(tools=[WEATHER])
        answer = ChatCompletion.model_validate(reply.json, strict=True)
        choice = answer.choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        assert choice.message.tool_calls is not None
        call: Any = choice.message.tool_calls[0]
        assert (call.type, call.function.name) == ("function", "get_weather")
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        assert answer.usage is not None
        assert answer.usage.completion_tokens > 0
        assert served.tool is not None
        asked = served.tool.requests[0]
        assert "the weather of a city" in text_of(asked)
        assert asked.json_schema is not None
        assert json.loads(asked.json_schema)["items"]["properties"]["arguments"]["properties"] == {
            "city": {"type": "string"}
        }
        await served.all_free()


async def test_a_streamed_call_comes_in_two_chunks() -> None:
    async with surface(held(0), tool_engine()) as served:
        reply = await served.chat_completion(tools=[WEATHER], stream=True, stream_options={"include_usage": True})
        chunks = [ChatCompletionChunk.model_validate(event, strict=True) for event in reply.events[:-1]]
        begun, arguments, end, usage = chunks
        assert begun.choices[0].delta.tool_calls is not None
        first = begun.choices[0].delta.tool_calls[0]
        assert (first.index, first.type, first.id is not None) == (0, "function", True)
        assert first.function is not None
        assert (first.function.name, first.function.arguments) == ("get_weather", "")
        assert arguments.choices[0].delta.tool_calls is not None
        second = arguments.choices[0].delta.tool_calls[0]
        assert second.function is not None
        assert json.loads(second.function.arguments or "") == {"city": "oh honey Paris"}
        assert end.choices[0].finish_reason == "tool_calls"
        assert usage.usage is not None
        await served.all_free()


async def test_a_no_is_a_reply() -> None:
    async with surface(None, tool_engine("[]")) as served:
        reply = await served.chat_completion(tools=[WEATHER])
        assert reply.json["choices"][0]["message"]["content"] == SAID
        assert "tool_calls" not in reply.json["choices"][0]["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": []},
        {"tools": [WEATHER], "tool_choice": "none"},
        {"tools": [{"type": "web_search"}]},
        {"tools": [WEATHER], "messages": [*HI, {"role": "tool", "tool_call_id": "c", "content": "rain"}]},
    ],
)
async def test_the_tool_engine_is_not_asked(fields: dict[str, Any]) -> None:
    """Without tools, where the request forbids them, and behind a tool's result: a turn of chat."""
    async with surface(None, tool_engine()) as served:
        reply = await served.chat_completion(**fields)
        assert reply.json["choices"][0]["message"]["content"] == SAID
        assert served.tool is not None
        assert served.tool.requests == []


async def test_a_result_stands_behind_the_line_that_asked_for_the_tool() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "rain?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "yes, 12 C"},
    ]
    async with surface(None, tool_engine()) as served:
        await served.chat_completion(messages=messages, tools=[WEATHER])
        assert "rain?\nTOOL RESULT get_weather: yes, 12 C" in text_of(served.chat.requests[0])


async def test_a_key_without_its_own_tool_prompt_has_no_tools() -> None:
    async with surface(None, tool_engine(), caller=replace(UNLIMITED, own_tool_prompt=False)) as served:
        reply = await served.chat_completion(tools=[WEATHER])
        assert reply.json["choices"][0]["message"]["content"] == SAID


LIGHT = {"type": "function", "function": {"name": "light"}}


@pytest.mark.parametrize("nested", [True, False])
def test_allowed_tools_are_asked_about_alone(nested: bool) -> None:
    """The form of chat completions, and that of responses."""
    tools = [WEATHER, LIGHT] if nested else [{"type": "function", **tool["function"]} for tool in (WEATHER, LIGHT)]  # type: ignore[dict-item]
    named = LIGHT if nested else {"type": "function", "name": "light"}
    for mode in ("auto", "required"):
        allowed = {"mode": mode, "tools": [named]}
        choice = {"type": "allowed_tools", **({"allowed_tools": allowed} if nested else allowed)}
        found = decode_tools({"tools": tools, "tool_choice": choice})
        assert found is not None
        assert "light" in found.prompt
        assert "get_weather" not in found.prompt
        assert found.required == (mode == "required")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
async def test_a_required_call_starts_no_reply(choice: Any) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    async with surface(None, tool_engine()) as served:
        reply = await served.chat_completion(tools=[WEATHER, other], tool_choice=choice)
        assert reply.json["choices"][0]["finish_reason"] == "tool_calls"
        assert served.chat.requests == []


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": {"a": 1}},
        {"tools": [5]},
        {"tools": [{"type": "function", "function": {"name": "not a name"}}]},
        {"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]},
        {"tools": [WEATHER] * 129},
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "b"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {
            "tools": [{"type": "function", "function": {"name": "a", "description": "x" * 100_000}}],
            "tool_choice": "required",
        },
    ],
)
async def test_tools_that_can_never_be_called_are_400(fields: dict[str, Any]) -> None:
    async with surface(None, tool_engine()) as served:
        reply = await served.chat_completion(**fields)
        assert reply.status == 400
        assert reply.json["error"]["type"] == "invalid_request_error"
        await served.all_free()


def test_schemas_that_refer_to_themselves_are_refused() -> None:
    loop = {"$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a"}}}}, "properties": {"x": {"$ref": "#/$defs/a"}}}
    with pytest.raises(OpenAIError, match="refers to itself"):
        self_contained(loop, "tools", SchemaBudget())
    with pytest.raises(OpenAIError, match="does not define"):
        self_contained({"$ref": "#/$defs/none"}, "tools", SchemaBudget())


def test_the_flat_form_of_responses_is_read() -> None:
    found = decode_tools({"tools": [{"type": "function", "name": "a", "parameters": {}}], "tool_choice": "auto"})
    assert found is not None
    assert (set(found.grammar.names), found.required) == ({"a"}, False)


# -- structured replies --------------------------------------------------------------------------------------------


async def test_a_schema_reaches_the_engine_and_phrases_are_cut_without_going_back() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}

    def person(request: GenerationRequest) -> str:
        return '{"name": "oh honey Ann"}'

    lists = catalogue(phrases=(PhraseRule("oh honey "),))
    async with surface(FakeEngine(reply=person), catalogue=lists) as served:
        wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
        reply = await served.chat_completion(response_format=wanted)
        assert json.loads(reply.json["choices"][0]["message"]["content"]) == {"name": "Ann"}
        assert [json.loads(request.json_schema or "") for request in served.chat.requests] == [schema]


async def test_biases_of_tokens_that_there_are_not_are_left_out() -> None:
    """vLLM refuses such a request: it was a 500 and a traceback in the log, as often as a client liked."""
    async with surface(FakeEngine()) as served:
        assert (await served.chat_completion(logit_bias={"3": 1, "9999999": 1})).status == 200
        assert dict(served.chat.requests[0].logit_bias) == {3: 1.0}


async def test_a_schema_that_costs_too_much_does_not_reach_the_engine() -> None:
    bomb = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^.{0,1000}$"}}}
    async with surface(FakeEngine()) as served:
        chat = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": bomb}}}
        form = {"type": "json_schema", "name": "x", "schema": bomb}
        for reply in (
            await served.chat_completion(**chat),
            await served.post("/v1/responses", {"model": "anna", "input": "hi", "text": {"format": form}}),
        ):
            assert (reply.status, reply.json["error"]["code"]) == (400, "invalid_json_schema")
            assert "pattern" in reply.json["error"]["message"]
        assert not served.chat.requests


@pytest.mark.parametrize("stream", [False, True])
async def test_a_schema_that_the_engine_refuses_is_the_clients_error(stream: bool) -> None:
    def refusing(request: GenerationRequest) -> str:
        raise SchemaRefused("unsupported type")

    async with surface(FakeEngine(reply=refusing)) as served:
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
        reply = await served.chat_completion(response_format=wanted, stream=stream)
        error = reply.events[-1]["error"] if stream else reply.json["error"]
        assert (reply.status, error["code"]) == (200 if stream else 400, "invalid_json_schema")
        assert "unsupported" not in error["message"]


# -- text completions ----------------------------------------------------------------------------------------------

PROMPT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_bare_model_continues_the_whole_prompt(stream: bool) -> None:
    async with surface() as served:
        fields = {"model": "fake", "prompt": PROMPT, "stream": stream, "stop": ["today"], "banned_strings": ["THERE"]}
        reply = await served.post("/v1/completions", fields)
        prompt = [*served.chat.requests[0].prompt_ids]
        assert prompt == served.chat.tokenizer.encode(PROMPT, add_special_tokens=False)
        if stream:
            assert reply.events[-1] == "[DONE]"
            choices = [event["choices"][0] for event in reply.events[:-1]]
            Completion.model_validate(reply.events[-2], strict=True)
            text, finish = "".join(choice["text"] for choice in choices), choices[-1]["finish_reason"]
        else:
            answer = Completion.model_validate(reply.json, strict=True)
            assert answer.usage is not None
            text, finish = answer.choices[0].text, answer.choices[0].finish_reason
        assert text.endswith("how are you ")
        assert "there" not in text.lower()
        assert finish == "stop"
        await served.all_free()


async def test_a_persona_takes_the_prompt_as_plain_text() -> None:
    async with surface() as served:
        assert (await served.post("/v1/completions", {"model": "anna", "prompt": PROMPT})).status == 200
        prompt = [*served.chat.requests[0].prompt_ids]
        start = served.chat.tokenizer.convert_tokens_to_ids("<|im_start|>")
        assert prompt.count(start) == 3  # system, user, assistant: none of the client's
        assert "You are Anna" in text_of(served.chat.requests[0])


@pytest.mark.parametrize(("default", "name"), [("", "anna"), ("max", "max")])
async def test_without_a_model_the_one_answers_that_tabbys_endpoint_shows(default: str, name: str) -> None:
    async with surface(default_model=default) as served:
        assert (await served.get("/v1/model")).json["id"] == name
        for fields in ({}, {"model": None}, {"model": ""}):
            assert (await served.post("/v1/completions", {"prompt": "hi", **fields})).json["model"] == name
        served.callers[KEY] = replace(UNLIMITED, personas=frozenset(), own_chat_prompt=False)
        served.context.callers._known.clear()
        assert (await served.get("/v1/model")).status == 404
        assert (await served.post("/v1/completions", {"prompt": "hi"})).status in (400, 404)


async def test_a_key_without_its_own_prompt_has_no_bare_model() -> None:
    async with surface(caller=replace(UNLIMITED, own_chat_prompt=False)) as served:
        assert (await served.post("/v1/completions", {"model": "fake", "prompt": "x"})).status == 404


@pytest.mark.parametrize("prompt", [None, "", 5, ["a", "b"], [1, 2], "word " * 10_000, "x" * 400_000])
async def test_a_prompt_that_can_never_work_is_400(prompt: Any) -> None:
    async with surface() as served:
        assert (await served.post("/v1/completions", {"model": "fake", "prompt": prompt})).status == 400
        await served.all_free()


async def test_tabbys_endpoints() -> None:
    async with surface() as served:
        ids = (await served.post("/v1/token/encode", {"text": "Hello <|im_start|>"})).json
        assert ids["length"] == len(ids["tokens"])
        assert served.chat.tokenizer.convert_tokens_to_ids("<|im_start|>") not in ids["tokens"]
        assert (await served.post("/v1/token/encode", {"text": 5})).status == 400
        assert (await served.post("/v1/token/encode", {"text": "x" * 500_000})).status == 400
        vllm = (await served.post("/tokenize", {"model": "anna", "prompt": "Hello <|im_start|>"})).json
        assert (vllm["tokens"], vllm["count"]) == (ids["tokens"], ids["length"])
        assert vllm["max_model_len"] == (await served.get("/v1/models/anna")).json["max_model_len"]
        assert (await served.post("/tokenize", {"text": "Hello"})).json["error"]["param"] == "prompt"
        assert (await served.post("/tokenize", {"prompt": "x" * 500_000})).status == 400
        assert (await served.post("/tokenize", {"prompt": "Hello"}, key="wrong")).status == 401
        assert (await served.get("/v1/model")).json["id"] == "anna"
        assert (await served.get("/v1/model/list")).json == (await served.get("/v1/models")).json

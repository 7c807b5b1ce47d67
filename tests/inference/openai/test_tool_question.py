"""Whose tools a request is decided about, and which engine decides: persona, request, tool engine, chat engine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from inference.engines.base import GenerationRequest
from inference.prompting.prompt_limits import PromptLimits
from inference.serving_context import SessionPolicy
from inference.tool_decision import ToolPolicy
from inference.turn_plan import TurnPolicy
from personas.snapshot import Catalogue
from personas.tool_snapshot import ToolSnapshot
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import ANNA, UNLIMITED, catalogue
from tests.inference.openai.exchange import HI, SAID, Reply, surface
from tests.inference.openai.responses_line import connected, said
from tests.inference.openai.test_tools import CALL, WEATHER, tool_engine
from tests.inference.session_lines import text_of

LIGHT = ToolSnapshot("light", "Switches the light.", '{"type":"object","properties":{"on":{"type":"boolean"}}}')
LIGHT_ON = '[{"name": "light", "arguments": {"on": true}}]'
FLAT = {"type": "function", **WEATHER["function"]}  # type: ignore[dict-item]
RESULT = {"role": "tool", "tool_call_id": "c", "content": "rain"}


def deciding(*, light: bool = True) -> Catalogue:
    """Anna, who decides about her tools on this surface, and one tool."""
    return replace(catalogue(replace(ANNA, openai_tool_decision=light)), tools=(LIGHT,))


def chat_engine(call: str) -> FakeEngine:
    """A chat engine that answers with a call where its output follows a schema, else with the reply."""

    def answer(request: GenerationRequest) -> str:
        return SAID if request.json_schema is None else call

    return FakeEngine(reply=answer)


def policy(kind: str) -> SessionPolicy:
    return SessionPolicy(turn=TurnPolicy(tool=ToolPolicy(kind=kind, hard_timeout_s=None)))


def called(reply: Reply) -> Any:
    """The name and the arguments of the answer's call; None for a reply in words."""
    choice = reply.json["choices"][0]
    if choice["finish_reason"] != "tool_calls":
        assert choice["message"]["content"]  # words, or JSON where the request wants some
        return None
    function = choice["message"]["tool_calls"][0]["function"]
    return function["name"], json.loads(function["arguments"])


# -- the persona's own tools -----------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"tools": [{"type": "web_search"}]}])
async def test_a_persona_that_says_so_is_decided_about_without_tools(fields: dict[str, Any]) -> None:
    async with surface(None, tool_engine(LIGHT_ON), catalogue=deciding()) as served:
        assert called(await served.chat_completion(**fields)) == ("light", {"on": True})
        assert served.tool is not None
        assert "Switches the light." in text_of(served.tool.requests[0])
        await served.all_free()


async def test_the_call_is_a_function_call_of_the_responses_api() -> None:
    async with connected(FakeEngine(reply=SAID), tool_engine(LIGHT_ON), catalogue=deciding()) as line:
        ended = await line.turn("Light, please")
        [item] = ended["response"]["output"]
        assert (item["type"], item["name"], item["arguments"]) == ("function_call", "light", '{"on":true}')
        result = {"type": "function_call_output", "call_id": item["call_id"], "output": "done"}
        after = await line.turn([result], previous_response_id=ended["response"]["id"])
        assert said(after) == SAID


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "none"},
        {"messages": [*HI, RESULT]},
        {"messages": [*HI, {"role": "assistant", "content": "Well"}]},
        {"messages": [{"role": "system", "content": "Speak first."}]},
        {"response_format": {"type": "json_object"}},
    ],
)
async def test_the_persona_is_not_decided_about(fields: dict[str, Any]) -> None:
    """Where the request forbids calls, behind a tool's result, in a continued reply, without a line, in JSON."""
    async with surface(None, tool_engine(LIGHT_ON), catalogue=deciding()) as served:
        assert called(await served.chat_completion(**fields)) is None
        assert served.tool is not None
        assert served.tool.requests == []


async def test_a_text_completion_has_no_decision() -> None:
    async with surface(None, tool_engine(LIGHT_ON), catalogue=deciding()) as served:
        reply = await served.post("/v1/completions", {"model": "anna", "prompt": "Light, please"})
        assert reply.json["choices"][0]["text"] == SAID
        assert served.tool is not None
        assert served.tool.requests == []


async def test_a_persona_that_does_not_say_so_is_not_decided_about() -> None:
    async with surface(None, tool_engine(LIGHT_ON), catalogue=deciding(light=False)) as served:
        assert called(await served.chat_completion()) is None
        assert served.tool is not None
        assert served.tool.requests == []


async def test_the_requests_tools_come_before_the_personas() -> None:
    async with surface(None, tool_engine(), catalogue=deciding()) as served:
        reply = await served.chat_completion(tools=[WEATHER])
        assert called(reply) == ("get_weather", {"city": "oh honey Paris"})


async def test_a_key_without_its_own_tool_prompt_has_the_personas_tools() -> None:
    caller = replace(UNLIMITED, own_tool_prompt=False)
    async with surface(None, tool_engine(LIGHT_ON), catalogue=deciding(), caller=caller) as served:
        assert called(await served.chat_completion(tools=[WEATHER])) == ("light", {"on": True})


async def test_without_a_tool_engine_and_classifier_the_persona_is_not_decided_about() -> None:
    """As on ``/ws``."""
    async with surface(chat_engine(LIGHT_ON), catalogue=deciding()) as served:
        assert called(await served.chat_completion()) is None
        assert len(served.chat.requests) == 1


# -- tools of the request without a tool engine ----------------------------------------------------------


async def test_the_chat_engine_decides_beside_the_reply() -> None:
    history = [{"role": "user", "content": "I am in Paris"}, {"role": "assistant", "content": "Lovely"}, *HI]
    async with surface(chat_engine(CALL), policy=policy("auto")) as served:
        reply = await served.chat_completion(tools=[WEATHER], messages=history)
        assert called(reply) == ("get_weather", {"city": "oh honey Paris"})
        [asked] = [request for request in served.chat.requests if request.json_schema is not None]
        assert "the weather of a city" in text_of(asked)
        assert "User: I am in Paris\nAssistant: Lovely\nUser: hi" in text_of(asked)
        assert len(served.chat.requests) == 2
        await served.all_free()


async def test_a_no_of_the_chat_engine_is_a_reply() -> None:
    async with surface(chat_engine("[]"), policy=policy("auto")) as served:
        assert called(await served.chat_completion(tools=[WEATHER])) is None
        await served.all_free()


async def test_the_chat_engine_is_not_asked_behind_a_result() -> None:
    async with surface(chat_engine(CALL), policy=policy("auto")) as served:
        assert called(await served.chat_completion(tools=[WEATHER], messages=[*HI, RESULT])) is None
        assert len(served.chat.requests) == 1


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("kind", ["auto", "model", "classifier"])
async def test_a_required_call_is_written_by_the_chat_engine(choice: Any, kind: str) -> None:
    async with surface(chat_engine(CALL), policy=policy(kind)) as served:
        reply = await served.chat_completion(tools=[WEATHER], tool_choice=choice)
        assert called(reply) == ("get_weather", {"city": "oh honey Paris"})
        [request] = served.chat.requests
        assert json.loads(request.json_schema or "")["minItems"] == 1


async def test_a_required_call_is_written_by_the_tool_engine_whatever_decides() -> None:
    async with surface(None, tool_engine(), policy=policy("classifier")) as served:
        reply = await served.chat_completion(tools=[WEATHER], tool_choice="required")
        assert called(reply) == ("get_weather", {"city": "oh honey Paris"})
        assert served.chat.requests == []


async def test_where_the_operator_chose_the_classifier_unknown_tools_are_no() -> None:
    async with surface(chat_engine(CALL), policy=policy("classifier")) as served:
        assert called(await served.chat_completion(tools=[WEATHER])) is None
        assert len(served.chat.requests) == 1


WIDE = {"type": "function", "function": {**WEATHER["function"], "description": "weather " * 500}}  # type: ignore[dict-item]
CONTEXT = PromptLimits(chat_context=800, chat_prompt=200)
TOOL_PROMPT = PromptLimits(tool_prompt=800)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limits", [CONTEXT, TOOL_PROMPT])
async def test_tools_that_do_not_fit_are_left_out(limits: PromptLimits, stream: bool) -> None:
    async with surface(chat_engine(CALL), policy=policy("auto"), limits=limits) as served:
        reply = await served.chat_completion(tools=[WIDE], stream=stream)
        assert (reply.text if stream else reply.json["choices"][0]["message"]["content"]) == SAID
        assert len(served.chat.requests) == 1
        await served.all_free()


async def test_the_tool_engine_is_not_asked_about_tools_that_do_not_fit() -> None:
    tool = tool_engine()
    async with surface(None, tool, limits=TOOL_PROMPT) as served:
        assert called(await served.chat_completion(tools=[WIDE])) is None
        assert tool.requests == []
        assert called(await served.chat_completion(tools=[WEATHER])) is not None


@pytest.mark.parametrize(
    ("limits", "code"), [(CONTEXT, "context_length_exceeded"), (TOOL_PROMPT, "tool_prompt_too_long")]
)
async def test_a_required_call_of_tools_that_do_not_fit_is_400(limits: PromptLimits, code: str) -> None:
    async with surface(chat_engine(CALL), policy=policy("auto"), limits=limits) as served:
        reply = await served.chat_completion(tools=[WIDE], tool_choice="required")
        assert (reply.status, reply.json["error"]["code"]) == (400, code)
        await served.all_free()


async def test_a_responses_client_is_answered_in_words_behind_a_result() -> None:
    """Clients send the same tools again beside a result, with ``tool_choice`` auto: no second call follows."""
    async with connected(FakeEngine(reply=SAID), tool_engine()) as line:
        ended = await line.turn("weather?", tools=[FLAT])
        [item] = ended["response"]["output"]
        result = {"type": "function_call_output", "call_id": item["call_id"], "output": "rain"}
        after = await line.turn([result], previous_response_id=ended["response"]["id"], tools=[FLAT])
        assert said(after) == SAID
        again = await line.turn("and tomorrow?", previous_response_id=after["response"]["id"], tools=[FLAT])
        assert again["response"]["output"][0]["type"] == "function_call"

"""The OpenAI surface on the demo model, asked by OpenAI's own package."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest

from tests.server import YapServer

pytestmark = pytest.mark.engine

SHORT = 16
BLOCK = 16
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def sdk(server: YapServer) -> Any:
    return openai.OpenAI(
        base_url=f"{server.origin}/v1", api_key=server.api_key, max_retries=0, timeout=60
    ).chat.completions


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def conversation(server: YapServer, seed: str) -> list[tuple[int, int]]:
    """Chat for three turns, the whole history each time.

    Returns:
        (cached tokens, tokens that were computed before) of each turn.
    """
    messages, before, found = [user(f"Tell me about the sea, {seed}.")], 0, []
    fields = {"model": "mia", "stream": True, "max_tokens": SHORT, "temperature": 0.2}
    for turn in range(3):
        chunks = list(sdk(server).create(messages=messages, stream_options={"include_usage": True}, **fields))
        usage = chunks[-1].usage
        found.append((usage.prompt_tokens_details.cached_tokens, before))
        before = usage.prompt_tokens + usage.completion_tokens - 1  # the last token has not been part of a prompt
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        messages += [{"role": "assistant", "content": text}, user(f"And then? {turn}")]
    return found


def test_cached_tokens_cover_all_that_was_said(demo_server: YapServer) -> None:
    # A reply that the guard cut, such as one that began with a label, is encoded again: not every conversation counts.
    talks = [conversation(demo_server, seed) for seed in ("one", "two", "three")]
    assert all(before > 90 for talk in talks for _, before in talk[1:])
    assert any(all(cached >= before // BLOCK * BLOCK for cached, before in talk) for talk in talks), talks


def test_calls_schemas_and_refused_schemas(demo_server: YapServer) -> None:
    ask = sdk(demo_server)
    answer = ask.create(
        model="mia", messages=[user("What is the weather in Paris?")], tools=[WEATHER], tool_choice="required"
    )
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert set(json.loads(call.function.arguments)) == {"city"}
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    answer = ask.create(model="mia", messages=[user("A person, please.")], response_format=wanted)
    person = json.loads(answer.choices[0].message.content)
    assert (type(person["name"]), type(person["age"])) == (str, int)
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": {"type": "nonsense"}}}
    with pytest.raises(openai.BadRequestError) as refused:
        ask.create(model="mia", messages=[user("hi")], response_format=wanted)
    assert refused.value.code == "invalid_json_schema"


def test_a_persona_that_says_so_is_decided_about_without_tools(demo_server: YapServer) -> None:
    """The real tool engine, asked about the persona's own tools: a yes, the reply to its result, and a no."""
    code = (
        "from personas.models import Persona; from personas.services import save_persona\n"
        "looker = Persona.objects.get(slug='mia'); looker.pk = None; looker.openai_tool_decision = True\n"
        "looker.slug, looker.name, looker.personality = 'looker', 'Looker', 'looking'; save_persona(looker)"
    )
    demo_server.manage("shell", "-v", "0", "-c", code)
    client = openai.OpenAI(base_url=f"{demo_server.origin}/v1", api_key=demo_server.api_key, max_retries=0, timeout=60)
    began = time.monotonic()
    while "looker" not in {model.id for model in client.models.list()}:
        assert time.monotonic() - began < 10
        time.sleep(0.05)

    def ask(*messages: Any, model: str = "looker") -> Any:
        return client.chat.completions.create(model=model, messages=messages, max_tokens=SHORT).choices[0]

    look = user("Can you see what is on my screen?")
    yes = ask(look)
    (call,) = yes.message.tool_calls
    assert (yes.finish_reason, call.function.name, call.function.arguments) == ("tool_calls", "take_screenshot", "{}")
    assert not yes.message.content
    result = {"role": "tool", "tool_call_id": call.id, "content": "A red bicycle."}
    for words in (
        ask(look, yes.message.model_dump(exclude_none=True), result),
        ask(user("I like pizza.")),
        ask(look, model="mia"),  # whose persona does not say so
    ):
        assert words.message.content
        assert not words.message.tool_calls
    answer = client.responses.create(model="looker", input=look["content"])
    assert [item.type for item in answer.output] == ["function_call"]


def test_a_stream_that_is_closed_frees_its_slot(demo_server: YapServer) -> None:
    stream = sdk(demo_server).create(model="mia", messages=[user("Tell me a long story.")], stream=True)
    next(iter(stream))
    assert demo_server.status()["connections"]["active"] == 1
    stream.close()
    began = time.monotonic()
    while demo_server.status()["connections"]["active"]:
        assert time.monotonic() - began < 2
        time.sleep(0.02)

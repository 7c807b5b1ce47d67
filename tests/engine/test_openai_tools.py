"""Tools of a request where no tool engine runs: the chat engine of the demo decides, and writes the call."""

from __future__ import annotations

from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.server import YapServer

pytestmark = pytest.mark.engine


class GetWeather(BaseModel):
    """Tell the weather of a city."""

    model_config = ConfigDict(extra="forbid", strict=True)
    city: str = Field(max_length=20)


class SetLight(BaseModel):
    """Switch the light of a room."""

    model_config = ConfigDict(extra="forbid", strict=True)
    room: Literal["kitchen", "bedroom"]
    percent: int = Field(ge=0, le=100)


MODELS: dict[str, type[BaseModel]] = {"GetWeather": GetWeather, "SetLight": SetLight}
TOOLS = [openai.pydantic_function_tool(model) for model in MODELS.values()]
QUESTION = {"role": "user", "content": "What is the weather in Paris right now?"}


def ask(server: YapServer, messages: list[Any], **fields: Any) -> Any:
    """Return the choice of a chat completion with tools."""
    client = openai.OpenAI(base_url=f"{server.origin}/v1", api_key=server.api_key, max_retries=0, timeout=60)
    answer = client.chat.completions.create(
        model="mia", messages=messages, tools=TOOLS, max_tokens=16, temperature=0.2, **fields
    )
    return answer.choices[0]


def called(choice: Any) -> Any:
    """Return the only call of a choice; its arguments follow the schema of its tool."""
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    MODELS[call.function.name].model_validate_json(call.function.arguments)
    return call


# One test, because each worker of the engine suite that runs one of several would start this server.
def test_the_chat_engine_decides_and_writes_calls(demo_chat_server: YapServer) -> None:
    named = {"type": "function", "function": {"name": "SetLight"}}
    assert called(ask(demo_chat_server, [QUESTION], tool_choice=named)).function.name == "SetLight"
    call = called(ask(demo_chat_server, [QUESTION], tool_choice="required"))
    messages = [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 24 degrees."},
    ]
    answer = ask(demo_chat_server, messages)
    assert answer.message.content
    assert not answer.message.tool_calls
    assert answer.finish_reason in ("stop", "length")
    for text in ("Turn the kitchen light up, please.", "I like you."):
        answer = ask(demo_chat_server, [{"role": "user", "content": text}], tool_choice="auto")
        assert called(answer) if answer.message.tool_calls else answer.message.content
    answer = ask(demo_chat_server, [QUESTION], tool_choice="none")
    assert answer.message.content
    assert not answer.message.tool_calls

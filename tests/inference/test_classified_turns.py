"""Turns that the classifier decides: order of frames, no request for a decision, arguments by a model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import pytest

from inference.engines.base import EngineRole
from inference.serving_context import SessionPolicy
from inference.tool_classifier.examples import Example
from inference.tool_classifier.head import Head
from inference.tool_classifier.service import ToolClassifier
from inference.tool_decision import ToolPolicy
from inference.turn_plan import TurnPolicy
from personas.snapshot import Catalogue
from personas.tool_snapshot import ToolHeadSnapshot, ToolSnapshot
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import ANNA, Line, make_serving

CITY = json.dumps({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
TOOLS = (ToolSnapshot("take_screenshot"), ToolSnapshot("weather", "Tells the weather.", CITY))
LINES = {
    "take_screenshot": ("look at my screen", "take a screenshot", "check this out", "can you see this", "read this"),
    "weather": ("how is the weather in Bonn", "will it rain in Paris", "weather in Rome please", "is it sunny in Oslo"),
    "": ("hi", "hello there", "i love you", "tell me a joke", "i am tired", "good night", "what is your name", "no"),
}
CALL = [{"name": "weather", "arguments": {"city": "Bonn"}}]


@cache
def small_head() -> Head:
    """A head of two tools, trained on a few lines; each line its own group."""
    from inference.tool_classifier.training import train

    return train([Example(line, tool, group=line) for tool, lines in LINES.items() for line in lines])


@asynccontextmanager
async def classified(
    chat: FakeEngine | None, tool: FakeEngine | None, *, kind: str = "auto", head: Head | None = None, **policy: Any
) -> AsyncIterator[Line]:
    turn = TurnPolicy(tool=ToolPolicy(hard_timeout_s=None, kind=kind, **policy))
    serving = await make_serving(
        chat, tool, catalogue=Catalogue({"anna": ANNA}, tools=TOOLS), policy=SessionPolicy(turn=turn)
    )
    if head is not None:
        stored = ToolHeadSnapshot(1, head.to_bytes(), 0.5)
        serving.classifier.install(stored, serving.classifier.prepare(stored))
    line = Line(serving)
    try:
        yield line
    finally:
        await line.session.aclose()
        await serving.engines.aclose()


def told(line: Line) -> dict[str, Any]:
    (frame,) = [frame for frame in line.frames if frame["type"] == "toolcall"]
    return frame


async def test_a_no_asks_no_engine_and_comes_before_the_first_token() -> None:
    chat, tool = FakeEngine(), FakeEngine(EngineRole.TOOL)
    async with classified(chat, tool, head=small_head()) as line:
        await line.turn(user_utterance="hi")
        assert line.types()[:2] == ["ack", "toolcall"]
        assert told(line)["status"] == "no"
        assert 0 <= told(line)["score"] < 0.5
        assert tool.requests == []
        assert len(chat.requests) == 1


@pytest.mark.parametrize("with_tool_engine", [True, False])
async def test_a_yes_without_arguments_is_complete_at_once(with_tool_engine: bool) -> None:
    chat, tool = FakeEngine(), FakeEngine(EngineRole.TOOL) if with_tool_engine else None
    async with classified(chat, tool, head=small_head()) as line:
        await line.turn(user_utterance="look at my screen")
        assert told(line)["raw"] == [{"name": "take_screenshot", "arguments": {}}]
        assert told(line)["score"] >= 0.5
        assert tool is None or tool.requests == []
        plain, prefixed = chat.requests
        assert plain.request_id in chat.aborted
        assert "CHECK SCREEN: look" in chat.tokenizer.decode(list(prefixed.prompt_ids))
        assert "CHECK SCREEN" not in chat.tokenizer.decode(list(plain.prompt_ids))


async def test_the_reply_is_with_its_engine_before_the_classifier_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = FakeEngine()
    async with classified(chat, None, head=small_head()) as line:
        submitted: list[int] = []
        choose = ToolClassifier.choose

        async def watched(self: ToolClassifier, *asked: Any) -> Any:
            submitted.append(len(chat.requests))
            return await choose(self, *asked)

        monkeypatch.setattr(ToolClassifier, "choose", watched)
        await line.turn(user_utterance="hi")
        assert submitted == [1]
        assert line.types()[:3] == ["ack", "toolcall", "token"]


@pytest.mark.parametrize("with_tool_engine", [True, False])
async def test_a_model_writes_arguments_under_the_tools_schema(with_tool_engine: bool) -> None:
    def reply(request: Any) -> str:
        return json.dumps(CALL) if request.json_schema else "Hello."

    chat, tool = FakeEngine(reply=reply), FakeEngine(EngineRole.TOOL, reply) if with_tool_engine else None
    writer = tool or chat
    async with classified(chat, tool, head=small_head()) as line:
        await line.turn(user_utterance="how is the weather in Bonn")
        assert told(line)["raw"] == CALL
        (asked,) = [request for request in writer.requests if request.json_schema]
        items = json.loads(asked.json_schema or "")["items"]
        assert items["properties"]["name"] == {"enum": ["weather"]}
        assert items["properties"]["arguments"]["required"] == ["city"]
        assert "Tells the weather." in writer.tokenizer.decode(list(asked.prompt_ids))
        assert line.types()[:2] == ["ack", "toolcall"]


async def test_arguments_that_do_not_come_make_a_no() -> None:
    def reply(request: Any) -> str:
        return "[{" if request.json_schema else "Hello."

    chat = FakeEngine(reply=reply)
    async with classified(chat, None, head=small_head()) as line:
        await line.turn(user_utterance="how is the weather in Bonn")
        assert told(line)["status"] == "no"
        assert line.text() == "Hello."


async def test_without_a_head_the_model_decides_or_no_one() -> None:
    chat, tool = FakeEngine(), FakeEngine(EngineRole.TOOL)
    async with classified(chat, tool) as line:
        await line.turn(user_utterance="hi")
        assert len(tool.requests) == 1
    async with classified(FakeEngine(), None) as line:
        await line.turn(user_utterance="hi")
        assert "toolcall" not in line.types()
    async with classified(FakeEngine(), FakeEngine(EngineRole.TOOL), kind="classifier") as line:
        await line.turn(user_utterance="hi")
        assert told(line)["status"] == "no"


async def test_model_kind_ignores_the_head() -> None:
    tool = FakeEngine(EngineRole.TOOL)
    async with classified(FakeEngine(), tool, kind="model", head=small_head()) as line:
        await line.turn(user_utterance="look at my screen")
        assert len(tool.requests) == 1


async def test_tools_that_the_head_does_not_know_are_the_models() -> None:
    tool = FakeEngine(EngineRole.TOOL)
    async with classified(FakeEngine(), tool, head=small_head()) as line:
        await line.turn(user_utterance="look", tool_prompt='Call {"name": "other", "arguments": {}} or not.')
        assert len(tool.requests) == 1


async def test_the_threshold_shifts_the_decision() -> None:
    text = "i am tired of my screen"
    score = small_head().choose(text).score
    assert 0.001 < score < 0.999
    for threshold, status in ((score - 0.001, "yes"), (score + 0.001, "no")):
        async with classified(FakeEngine(), None, head=small_head(), threshold=threshold) as line:
            await line.turn(user_utterance=text)
            assert told(line)["status"] == status
            assert told(line)["score"] == pytest.approx(score, abs=1e-3)


async def test_a_character_that_speaks_first_asks_no_classifier() -> None:
    async with classified(FakeEngine(), None, head=small_head()) as line:
        await line.turn(user_utterance="")
        assert told(line)["status"] == "no"
        assert "score" not in told(line)

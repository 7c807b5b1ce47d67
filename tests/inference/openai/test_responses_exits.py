"""No banned phrase leaves at any exit of a response, and its parts agree about the text. Function calls."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from inference.engines.base import EngineRole, GenerationRequest
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import ANNA, catalogue
from tests.inference.openai.exchange import surface
from tests.inference.openai.responses_line import ResponsesLine, connected
from tests.inference.openai.test_responses_http import post
from tests.inference.phrases.test_phrase_exits import RULES, STYLES, Wanting, leaks
from tests.inference.session_lines import PATIENT, SAID, prompts

Event = dict[str, Any]
TOOL = {
    "type": "function",
    "name": "note",
    "description": "Writes a note.",
    "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}


def texts_of(events: list[Event]) -> dict[str, str]:
    """The text of one response at each of its exits."""
    found = {"deltas": "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")}
    for event in events:
        match event["type"]:
            case "response.output_text.done":
                found["text done"] = event["text"]
            case "response.content_part.done":
                found["part done"] = event["part"]["text"]
            case "response.output_item.done":
                found["item done"] = event["item"]["content"][0]["text"]
    for item in events[-1]["response"]["output"]:
        found["output"] = item["content"][0]["text"]
    return found


def check(line: ResponsesLine) -> str:
    found = texts_of(line.events)
    assert len(set(found.values())) == 1, found
    text = found["deltas"]
    assert not leaks(text), text
    assert text == "" or len(found) == 5
    return text


def banned(style: str = "raw") -> Any:
    return catalogue(replace(ANNA, output_style=style), phrases=RULES)


@STYLES
@pytest.mark.parametrize("limit", [3, 8, 20, None])
async def test_a_reply_that_ends_by_itself(limit: int | None, style: str) -> None:
    async with connected(Wanting(), catalogue=banned(style)) as line:
        ended = await line.turn("hi", max_output_tokens=limit)
        own = limit in (3, 8)
        assert ended["type"] == ("response.incomplete" if own else "response.completed")
        assert check(line)


@STYLES
@pytest.mark.parametrize("given", range(1, 24, 2))
async def test_a_reply_that_is_cancelled(given: int, style: str) -> None:
    chat = Wanting(given)
    async with connected(chat, catalogue=banned(style)) as line:
        await line.create("hi")
        await chat.drained()
        await line.cancel()
        assert (await line.until_ended(1))[-1]["type"] == "response.incomplete"
        text = check(line)
        chat.step = None
        await line.turn("go on", previous_response_id=line.events[0]["response"]["id"])
        assert text in prompts(chat)[-1]


@pytest.mark.parametrize("given", range(1, 24, 4))
async def test_a_reply_that_runs_out_of_time(given: int) -> None:
    chat = Wanting(given)
    async with connected(chat, catalogue=banned(), turn=TurnPolicy(reply_timeout_s=0.03)) as line:
        ended = await line.turn("hi")
        text = check(line)
        assert ended["type"] == ("response.completed" if text else "response.failed")


@pytest.mark.parametrize("given", range(1, 24, 4))
async def test_an_engine_that_dies(given: int) -> None:
    chat = Wanting(given)
    async with connected(chat, catalogue=banned()) as line:
        await line.create("hi")
        await chat.drained()
        chat.die()
        assert (await line.until_ended(1))[-1]["type"] == "response.failed"
        check(line)


async def test_one_object_holds_no_phrase() -> None:
    async with surface(Wanting(), catalogue=banned()) as parts:
        answer = await post(parts)
    text = answer.json["output"][0]["content"][0]["text"]
    assert text
    assert not leaks(text)


async def test_the_requests_own_phrases_are_banned_too() -> None:
    async with connected(FakeEngine(reply=SAID)) as line:
        await line.turn("hi", banned_strings=["hello THERE"])
        assert "hello there" not in check(line).casefold()


# -- functions -------------------------------------------------------------------------------------------


def deciding(*calls: Event) -> FakeEngine:
    def answer(request: GenerationRequest) -> str:
        return json.dumps(list(calls))

    return FakeEngine(EngineRole.TOOL, answer)


async def test_a_call_comes_in_the_replys_place() -> None:
    chat, tool = FakeEngine(reply=SAID), deciding({"name": "note", "arguments": {"text": "buy milk"}})
    async with connected(chat, tool, turn=PATIENT) as line:
        ended = await line.turn("Note: buy milk", tools=[TOOL])
        assert ended["type"] == "response.completed"
        [item] = ended["response"]["output"]
        assert (item["type"], item["name"], json.loads(item["arguments"])) == (
            "function_call",
            "note",
            {"text": "buy milk"},
        )
        assert not [event for event in line.events if event["type"] == "response.output_text.delta"]
        assert ended["response"]["tools"][0]["name"] == "note"
        tool.reply = "[]"
        result = {"type": "function_call_output", "call_id": item["call_id"], "output": "noted"}
        for repeated in ([], [{name: item[name] for name in ("type", "call_id", "name", "arguments")}]):
            after = await line.turn(
                [*repeated, result], previous_response_id=ended["response"]["id"], tools=[TOOL], tool_choice="none"
            )
            assert after["type"] == "response.completed"
            assert "noted" in prompts(chat)[-1]
            assert "Note: buy milk" in prompts(chat)[-1]


async def test_a_decision_of_no_is_a_reply() -> None:
    async with connected(FakeEngine(reply=SAID), FakeEngine(EngineRole.TOOL, "[]"), turn=PATIENT) as line:
        await line.turn("hi", tools=[TOOL])
        assert check(line) == SAID


async def test_a_calls_arguments_hold_no_phrase() -> None:
    chat, tool = FakeEngine(reply=SAID), deciding({"name": "note", "arguments": {"text": "Oh honey, the cat"}})
    async with connected(chat, tool, turn=PATIENT, catalogue=banned()) as line:
        ended = await line.turn("Note it", tools=[TOOL])
        written = [event["delta"] for event in line.events if event["type"].endswith("arguments.delta")]
        written += [event["arguments"] for event in line.events if event["type"].endswith("arguments.done")]
        written += [event["item"]["arguments"] for event in line.events if event["type"].endswith("item.done")]
        written.append(ended["response"]["output"][0]["arguments"])
        assert len(written) == 4
        assert len(set(written)) == 1
        assert not leaks(written[0])


async def test_a_schema_reaches_the_engine() -> None:
    chat = FakeEngine(reply=lambda request: '{"mood":"good"}')
    schema = {"type": "object", "properties": {"mood": {"type": "string"}}}
    form = {"format": {"type": "json_schema", "name": "mood", "schema": schema, "strict": True}}
    async with connected(chat) as line:
        ended = await line.turn("how are you?", text=form)
        assert json.loads(check(line)) == {"mood": "good"}
        assert ended["response"]["text"]["format"]["name"] == "mood"
    assert json.loads(chat.requests[0].json_schema or "") == schema

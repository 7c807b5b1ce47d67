"""``POST /v1/responses`` in this process."""

from __future__ import annotations

from typing import Any

from openai.types.responses import Response

from inference.openai.responses_frames import SSE_EVENTS
from inference.serving_context import SessionPolicy
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine
from tests.inference.openai.exchange import Reply, Surface, surface
from tests.inference.openai.test_responses_frames import read, types
from tests.inference.session_lines import SAID, held, prompts


async def post(parts: Surface, **body: Any) -> Reply:
    return await parts.post("/v1/responses", {"model": "anna", "input": "hi", **body})


async def test_a_response_as_one_object() -> None:
    async with surface(FakeEngine(reply=SAID)) as parts:
        answer = await post(parts)
        response = Response.model_validate(answer.json, strict=True)
    assert answer.status == 200
    assert (response.status, response.output_text) == ("completed", SAID)
    assert response.usage is not None


async def test_a_response_as_events() -> None:
    async with surface(FakeEngine(reply=SAID)) as parts:
        answer = await post(parts, stream=True)
        events = read(answer.body.decode(), SSE_EVENTS)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert types(events)[:2] == ["created", "in_progress"]
    assert "".join(event.get("delta", "") for event in events) == SAID
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == SAID


async def test_a_response_is_continued_by_another_request_unless_it_was_not_stored() -> None:
    chat = FakeEngine(reply=SAID)
    async with surface(chat) as parts:
        kept = (await post(parts, input="My name is Tom.")).json["id"]
        second = await post(parts, input="Who am I?", previous_response_id=kept)
        lost = (await post(parts, store=False)).json["id"]
        refused = await post(parts, previous_response_id=lost)
    assert second.status == 200
    assert prompts(chat)[1].index("Tom") < prompts(chat)[1].index(SAID) < prompts(chat)[1].index("Who am I?")
    assert (refused.status, refused.json["error"]["code"]) == (400, "previous_response_not_found")


async def test_an_error_before_the_answer_has_a_status_and_one_after_it_an_event() -> None:
    async with surface(FakeEngine()) as parts:
        unknown = await post(parts, model="unknown", stream=True)
        assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
        wrong = await post(parts, input=4)
        assert (wrong.status, wrong.json["error"]["param"]) == (400, "input")
    chat = held(2)
    async with surface(chat) as parts:
        request = parts.begin("/v1/responses", {"model": "anna", "input": "hi", "stream": True})
        await request.until(lambda reply: b"delta" in reply.body)
        chat.die()
        answer = await request.end()
        assert types(read(answer.body.decode(), SSE_EVENTS))[-1] == "failed"


async def test_why_the_server_ended_a_response_is_its_last_event() -> None:
    for stream in (True, False):
        chat = held(2)
        async with surface(chat) as parts:
            request = parts.begin("/v1/responses", {"model": "anna", "input": "hi", "stream": stream})
            await chat.wait_for_requests(1)
            if stream:
                await request.until(lambda reply: b"delta" in reply.body)
            for live in parts.context.registry:
                await live.revoke()
            answer = await request.end()
            await parts.all_free()
        if not stream:
            assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
            continue
        events = read(answer.body.decode(), SSE_EVENTS)
        assert types(events)[-2:] == ["incomplete", "error"]
        assert events[-1]["code"] == "invalid_api_key"
        assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def test_a_response_that_fails_before_its_answer_is_an_error() -> None:
    async with surface(held(0), policy=SessionPolicy(turn=TurnPolicy(reply_timeout_s=0.05))) as parts:
        answer = await post(parts)
    assert answer.status >= 500
    assert answer.json["error"]["type"] == "server_error"


async def test_a_client_that_leaves_frees_the_engine_streamed_or_not() -> None:
    for stream in (True, False):
        chat = held(2)
        async with surface(chat) as parts:
            request = parts.begin("/v1/responses", {"model": "anna", "input": "hi", "stream": stream})
            await chat.wait_for_requests(1)
            request.leave()
            await request.end()
            await parts.all_free()

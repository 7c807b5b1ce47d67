"""Conversations over the Responses WebSocket: responses continued by their id, what was heard, calls, warm-ups."""

from __future__ import annotations

from dataclasses import replace

from tests.fakes.engine import FakeEngine
from tests.fakes.serving import UNLIMITED
from tests.inference.openai.exchange import surface
from tests.inference.openai.responses_line import ResponsesLine, connected, said
from tests.inference.session_lines import SAID, held, let_go, prompts


async def test_a_response_is_continued_by_its_id() -> None:
    chat = FakeEngine(reply=SAID)
    async with connected(chat) as line:
        first = await line.turn("My name is Tom.")
        second = await line.turn("What is my name?", previous_response_id=first["response"]["id"])
        assert second["response"]["previous_response_id"] == first["response"]["id"]
    prompt = prompts(chat)[1]
    assert prompt.index("My name is Tom.") < prompt.index(SAID) < prompt.index("What is my name?")
    assert second["response"]["usage"]["input_tokens_details"]["cached_tokens"] > 0
    first_ids, second_ids = (list(request.prompt_ids) for request in chat.requests)
    assert second_ids[: len(first_ids)] == first_ids, "what was said keeps its token ids"


async def test_instructions_are_not_inherited() -> None:
    chat = FakeEngine()
    async with connected(chat) as line:
        first = await line.turn("hi", instructions="Say it in French.")
        await line.turn("again", previous_response_id=first["response"]["id"])
    assert "French" in prompts(chat)[0]
    assert "French" not in prompts(chat)[1]


async def test_a_response_is_continued_on_another_connection_of_the_same_key() -> None:
    async with surface(FakeEngine(reply=SAID)) as parts:
        one, two = ResponsesLine(parts), ResponsesLine(parts)
        stranger = ResponsesLine(parts, replace(UNLIMITED, prefix="other"))
        first = await one.turn("hi")
        await one.session.aclose()
        name = first["response"]["id"]
        assert (await two.turn("and?", previous_response_id=name))["type"] == "response.completed"
        refused = await stranger.turn("and?", previous_response_id=name)
        assert (refused["status"], refused["error"]["code"]) == (400, "previous_response_not_found")
        assert refused["error"]["param"] == "previous_response_id"
        for line in (two, stranger):
            await line.session.aclose()


async def test_a_response_that_is_not_stored_is_continued_on_its_own_connection_alone() -> None:
    async with surface(FakeEngine(reply=SAID)) as parts:
        own, other = ResponsesLine(parts), ResponsesLine(parts)
        name = (await own.turn("hi", store=False))["response"]["id"]
        refused = await other.turn("and?", previous_response_id=name)
        assert refused["error"]["code"] == "previous_response_not_found"
        assert (await own.turn("and?", previous_response_id=name, store=False))["type"] == "response.completed"
        assert len(parts.context.responses) == 0
        for line in (own, other):
            await line.session.aclose()


async def test_what_was_heard_replaces_the_stored_reply() -> None:
    chat = FakeEngine(reply=SAID)
    async with connected(chat) as line:
        first = await line.turn("hi")
        items = [{"role": "assistant", "content": "Hello there"}, {"role": "user", "content": "stop"}]
        await line.turn(items, previous_response_id=first["response"]["id"])
    assert "Hello there" in prompts(chat)[1]
    assert "how are you" not in prompts(chat)[1]
    assert prompts(chat)[1].count("Hello there") == 1


async def test_an_interrupted_response_can_be_continued_as_far_as_it_was_sent() -> None:
    chat = held(4)
    async with connected(chat) as line:
        await line.create("hi")
        created = await line.until_type("response.created")
        await line.until_type("response.output_text.delta", 3)
        await line.cancel()
        ended = (await line.until_ended(1))[-1]
        let_go(chat)
        await line.turn("go on", previous_response_id=created["response"]["id"])
    assert said(ended) in prompts(chat)[1]
    assert SAID not in prompts(chat)[1]


async def test_two_requests_that_continue_the_same_response_do_not_mix() -> None:
    chat = FakeEngine(reply=SAID)
    async with connected(chat) as line:
        first = (await line.turn("hi"))["response"]["id"]
        await line.turn("left", previous_response_id=first)
        await line.turn("right", previous_response_id=first)
    assert "left" not in prompts(chat)[2]
    assert "right" in prompts(chat)[2]


async def test_a_call_without_a_result_does_not_break_the_conversation() -> None:
    chat = FakeEngine(reply=SAID)
    call = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
    async with connected(chat) as line:
        ended = await line.turn([{"role": "user", "content": "look!"}, call, {"role": "user", "content": "never mind"}])
        assert ended["type"] == "response.completed"
        orphan = {"type": "function_call_output", "call_id": "call_2", "output": "a cat"}
        assert (await line.turn([orphan]))["type"] == "response.completed"
    assert "never mind" in prompts(chat)[0]


async def test_a_warm_up_generates_nothing_and_can_be_continued() -> None:
    chat = FakeEngine(reply=SAID)
    async with connected(chat) as line:
        warm = await line.turn("My name is Tom.", generate=False)
        assert warm["type"] == "response.completed"
        assert warm["response"]["output"] == []
        assert [event["type"] for event in line.events] == [
            "response.created", "response.in_progress", "response.completed"
        ]  # fmt: skip
        assert [request.max_tokens for request in chat.requests] == [1]
        await line.turn("Well?", previous_response_id=warm["response"]["id"])
    assert "My name is Tom." in prompts(chat)[1]

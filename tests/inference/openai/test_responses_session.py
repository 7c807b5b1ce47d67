"""A Responses connection: what voice clients rely on, each as they were seen to need it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from accounts.callers import Window
from inference.openai import responses_session
from inference.openai.response_lane import MAX_IN_FLIGHT
from inference.protocol.close_codes import CLOSE_NORMAL, CLOSE_POLICY, CLOSE_RESTART
from inference.serving_context import SessionPolicy
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine
from tests.inference.openai.exchange import surface
from tests.inference.openai.responses_line import ResponsesLine, connected, endings, said
from tests.inference.session_lines import SAID, held, let_go, limited, prompts, settled

# -- a turn ----------------------------------------------------------------------------------------------


async def test_a_turn() -> None:
    async with connected(FakeEngine(reply=SAID)) as line:
        ended = await line.turn("hi", model="anna")
        response = ended["response"]
        assert ended["type"] == "response.completed"
        assert said(ended) == line.text_of(response["id"]) == SAID
        assert response["model"] == "anna"
        assert response["usage"]["input_tokens_details"].keys() == {"cached_tokens", "cache_write_tokens"}
        assert response["usage"]["output_tokens"] > 0


async def test_the_addresss_model_answers_a_request_that_names_none() -> None:
    async with connected(FakeEngine()) as line:
        assert (await line.turn("hi"))["response"]["model"] == "anna"


async def test_an_unknown_model_is_refused_and_the_connection_lives_on() -> None:
    async with connected(FakeEngine()) as line:
        ended = await line.turn("hi", model="unknown")
        assert (ended["type"], ended["status"], ended["error"]["code"]) == ("error", 404, "model_not_found")
        assert "anna" in ended["error"]["message"]
        assert (await line.turn("hi"))["type"] == "response.completed"


async def test_the_persona_and_the_clients_instructions_are_in_the_prompt() -> None:
    chat = FakeEngine()
    async with connected(chat) as line:
        await line.turn("hi", instructions="You speak with a caller.")
    assert "You are Anna, calm and kind." in prompts(chat)[0]
    assert "You speak with a caller." in prompts(chat)[0]


# -- how a response ends ---------------------------------------------------------------------------------


async def test_the_servers_limit_ends_completed_and_the_clients_own_incomplete() -> None:
    policy = SessionPolicy(turn=TurnPolicy(), max_out=6)
    async with connected(FakeEngine(reply=SAID * 4), policy=policy) as line:
        assert (await line.turn("hi"))["type"] == "response.completed"
        assert (await line.turn("hi", max_output_tokens=500))["type"] == "response.completed"
        own = await line.turn("hi", max_output_tokens=3)
        assert own["type"] == "response.incomplete"
        assert own["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_a_timeout_with_text_ends_completed() -> None:
    chat = held(3)
    async with connected(chat, turn=TurnPolicy(reply_timeout_s=0.05)) as line:
        ended = await line.turn("hi")
        assert ended["type"] == "response.completed"
        assert said(ended)
    async with connected(held(0), turn=TurnPolicy(reply_timeout_s=0.05)) as line:
        failed = await line.turn("hi")
        assert (failed["type"], failed["response"]["error"]["code"]) == ("response.failed", "server_error")


async def test_a_dead_engine_fails_the_response_and_not_the_connection() -> None:
    chat = held(2)
    async with connected(chat) as line:
        await line.create("hi")
        await line.until_type("response.output_text.delta")
        chat.die()
        assert (await line.until_ended(1))[-1]["type"] == "response.failed"
        ended = await line.turn("hi")
        assert (ended["type"], ended["status"], ended["error"]["type"]) == ("error", 503, "server_error")
        assert line.closed is None


# -- cancelling ------------------------------------------------------------------------------------------


async def test_a_cancelled_response_ends_incomplete_and_the_next_turn_is_whole() -> None:
    chat = held(4)
    async with connected(chat) as line:
        await line.create("hi")
        created = await line.until_type("response.created")
        await line.until_type("response.output_text.delta", 3)
        await line.cancel(created["response"]["id"])
        ended = (await line.until_ended(1))[-1]
        assert ended["type"] == "response.incomplete"
        assert ended["response"]["incomplete_details"] == {"reason": None}
        assert said(ended) == line.text_of(created["response"]["id"]) != ""
        await chat.wait_idle()
        assert len(chat.aborted) == 1
        let_go(chat)
        after = await line.turn("and now?")
        assert (after["type"], said(after)) == ("response.completed", SAID)


async def test_a_cancellation_that_comes_too_late_is_ignored() -> None:
    async with connected(FakeEngine(reply=SAID)) as line:
        first = await line.turn("one")
        await line.cancel(first["response"]["id"])
        await line.cancel()
        await line.create("two")
        await line.cancel(first["response"]["id"])
        second = (await line.until_ended(2))[-1]
        assert second["type"] == "response.completed"
        assert said(second) == SAID
        assert not [event for event in line.events if event["type"] == "error"]


async def test_a_cancellation_without_a_name_stops_the_running_response() -> None:
    chat = held(0)
    async with connected(chat) as line:
        await line.create("hi")
        await line.until_type("response.created")
        await line.cancel()
        assert (await line.until_ended(1))[-1]["type"] == "response.incomplete"
        await chat.wait_idle()


async def test_late_cancellations_without_end_close_the_connection() -> None:
    async with connected(FakeEngine()) as line:
        for _ in range(200):
            await line.cancel("resp_none")
        assert line.closed == CLOSE_POLICY
        assert not line.events


# -- one lane --------------------------------------------------------------------------------------------


async def test_a_second_request_waits_for_the_first_response() -> None:
    chat = held(2)
    async with connected(chat) as line:
        await line.create("one", stream_id="s1")
        await line.create("two", stream_id="s2")
        await line.until_type("response.output_text.delta", 2)
        await settled()
        assert len(chat.requests) == 1
        let_go(chat)
        await line.until_ended(2)
        lanes = [event["stream_id"] for event in line.events]
        assert lanes == sorted(lanes)
        assert ["one" in prompts(chat)[0], "two" in prompts(chat)[1]] == [True, True]


async def test_a_cancellation_leaves_the_requests_that_wait() -> None:
    chat = held(2)
    async with connected(chat) as line:
        await line.create("one")
        await line.create("two")
        created = await line.until_type("response.created")
        await line.cancel(created["response"]["id"])
        let_go(chat)
        one, two = await line.until_ended(2)
        assert (one["type"], two["type"]) == ("response.incomplete", "response.completed")


async def test_sixteen_requests_are_in_flight_at_most() -> None:
    chat = held(0)
    async with connected(chat) as line:
        for _ in range(MAX_IN_FLIGHT + 1):
            await line.create("hi")
        refused = (await line.until_ended(1))[0]
        assert (refused["type"], refused["status"]) == ("error", 429)
        assert refused["error"]["headers"] == {"retry-after": "1"}
        let_go(chat)
        assert len(await line.until_ended(MAX_IN_FLIGHT + 1)) == MAX_IN_FLIGHT + 1


async def test_a_connection_takes_requests_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses_session, "MAX_AGE_S", 0.03)
    chat = held(2)
    async with connected(chat) as line:
        await line.create("hi")
        await line.until_type("response.output_text.delta")
        await asyncio.sleep(0.05)
        assert not line.is_closed, "the running response ends first"
        ended = await line.turn("more")
        assert ended["error"]["code"] == "websocket_connection_limit_reached"
        let_go(chat)
        await line.until(lambda events: line.closed is not None)
        assert [event["type"] for event in endings(line.events)][1] == "response.completed"
        assert line.closed == CLOSE_NORMAL
    async with connected(FakeEngine()) as idle:
        await idle.until(lambda events: idle.closed is not None)
        assert idle.events[-1]["error"]["code"] == "websocket_connection_limit_reached"


# -- refusals and ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "invalid_json"),
        ("[1]", "invalid_json"),
        (None, "invalid_json"),
        ({"type": "response.steer", "response_id": "resp_1", "input": []}, "invalid_value"),
        ({"type": 5}, "invalid_value"),
        ({}, "invalid_value"),
        ({"type": "response.create"}, "missing_required_parameter"),
        ({"type": "response.create", "input": {"a": 1}}, "invalid_type"),
        ({"type": "response.create", "input": "x", "previous_response_id": "resp_0"}, "previous_response_not_found"),
    ],
)
async def test_bad_events_are_answered_and_the_connection_lives_on(frame: Any, code: str) -> None:
    async with connected(FakeEngine()) as line:
        await line.say(frame)
        error = await line.until_type("error")
        assert (error["status"], error["error"]["code"]) == (400, code)
        assert (await line.turn("hi"))["type"] == "response.completed"


async def test_bad_events_without_end_close_the_connection() -> None:
    async with connected(FakeEngine()) as line:
        for _ in range(300):
            await line.say("{")
        assert line.closed == CLOSE_POLICY
        assert len(line.events) < 150


async def test_the_keys_message_window_holds_over_all_its_connections() -> None:
    caller = limited(messages=Window(2, 60.0))
    async with surface(FakeEngine(reply=SAID)) as parts:
        one, two = ResponsesLine(parts, caller), ResponsesLine(parts, caller)
        await one.turn("a")
        await two.turn("b")
        refused = await one.turn("c")
        assert (refused["status"], refused["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(refused["error"]["headers"]["retry-after"]) >= 1
        for line in (one, two):
            await line.session.aclose()


async def test_a_client_that_leaves_frees_the_engine_at_once() -> None:
    chat = held(2)
    async with surface(chat) as parts:
        line = ResponsesLine(parts)
        await line.create("one")
        await line.create("two")
        await line.until_type("response.output_text.delta", 2)
        assert parts.context.registry.running == 1
        await line.session.aclose()
        async with asyncio.timeout(1):
            await chat.wait_idle()
        await settled()
        assert len(chat.requests) == 1, "what waited never runs"
        assert parts.context.registry.running == 0
        assert (await parts.slots.snapshot())["active"] == 0


async def test_an_idle_connection_holds_no_slot() -> None:
    async with surface(FakeEngine()) as parts:
        line = ResponsesLine(parts)
        await line.turn("hi")
        await settled()
        assert (await parts.slots.snapshot())["active"] == 0
        await line.session.aclose()


async def test_a_revoked_key_stops_the_response_and_closes() -> None:
    chat = held(2)
    async with connected(chat) as line:
        await line.create("hi")
        await line.until_type("response.output_text.delta")
        await line.session.revoke()
        assert line.closed == CLOSE_POLICY
        assert line.events[-1]["error"]["code"] == "invalid_api_key"
        await chat.wait_idle()


async def test_a_drain_lets_the_response_end_and_then_closes() -> None:
    chat = held(2)
    async with connected(chat) as line:
        await line.create("hi")
        await line.until_type("response.output_text.delta")
        draining = asyncio.create_task(line.session.drain(5))
        await settled()
        assert line.closed is None
        let_go(chat)
        await draining
        assert endings(line.events)[-1]["type"] == "response.completed"
        assert line.closed == CLOSE_RESTART

"""The events of one response, each validated by OpenAI's own types, strictly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponsesServerEvent, ResponseStreamEvent
from pydantic import TypeAdapter

from inference.openai.responses_frames import SOCKET_EVENTS, SSE_EVENTS, EventForm, ResponseFrames, ResponseHead
from inference.openai.responses_requests import Item
from inference.protocol.errors import ErrorCode
from inference.turn_result import EndReason, GenerationUsage

SOCKET: TypeAdapter[Any] = TypeAdapter(ResponsesServerEvent)
STREAM: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "look", "description": "", "strict": True, "parameters": {"type": "object"}}
USAGE = GenerationUsage(prompt_tokens=20, cached_tokens=16, completion_tokens=3)


def read(written: str, form: EventForm = SOCKET_EVENTS) -> list[dict[str, Any]]:
    """The events of what was written, validated."""
    assert not written or written.endswith(form.separator)
    events = []
    for block in filter(None, written.split(form.separator)):
        head, _, data = block.rpartition("\n")
        event = json.loads(data.removeprefix("data: ") if form.named else block)
        if form.named:
            assert head == f"event: {event['type']}"
        (STREAM if form.named else SOCKET).validate_python(event, strict=True)
        events.append(event)
    return events


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def frames(form: EventForm = SOCKET_EVENTS, **fields: Any) -> ResponseFrames:
    return ResponseFrames(ResponseHead("mia", **fields), form)


def reply(one: ResponseFrames, *texts: str, reason: EndReason = EndReason.STOP) -> str:
    """A whole reply."""
    written = one.ack() + "".join(one.token(text) for text in texts)
    return written + one.final("".join(texts)) + one.done(USAGE.as_frame(reason))


@pytest.mark.parametrize("form", [SOCKET_EVENTS, SSE_EVENTS], ids=["socket", "sse"])
def test_a_reply_is_a_valid_series_of_events_numbered_from_zero(form: EventForm) -> None:
    one = frames(form, tools=[TOOL], metadata={"a": "b"}, max_output_tokens=50, temperature=0.7, top_p=1.0)
    events = read(reply(one, "Hel", 'lo "you"\n', "☕"), form)
    assert types(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    text = 'Hello "you"\n☕'
    assert "".join(event["delta"] for event in events if "delta" in event) == text
    *_, text_done, part_done, item_done, completed = events
    assert text_done["text"] == part_done["part"]["text"] == item_done["item"]["content"][0]["text"] == text
    response = Response.model_validate(completed["response"], strict=True)
    assert response.output_text == text
    assert response.status == "completed"
    assert response.tools[0].name == "look"  # type: ignore[union-attr]
    assert {event["response"]["id"] for event in events if "response" in event} == {one.head.response_id}
    assert json.loads(one.response) == completed["response"]
    assert one.output_items() == (Item("assistant", text),)


def test_usage_has_what_livekit_requires() -> None:
    usage = read(reply(frames(), "hi"))[-1]["response"]["usage"]
    assert usage == {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 23,
    }


def test_a_reply_cut_by_the_servers_limit_is_completed() -> None:
    ended = read(reply(frames(), "hi", reason=EndReason.LENGTH))[-1]
    assert ended["type"] == "response.completed"


@pytest.mark.parametrize("form", [SOCKET_EVENTS, SSE_EVENTS], ids=["socket", "sse"])
def test_a_reply_cut_by_the_clients_own_smaller_limit_is_incomplete(form: EventForm) -> None:
    events = read(reply(frames(form, max_output_tokens=3, own_limit=True), "hi", reason=EndReason.LENGTH), form)
    assert types(events)[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert events[-1]["response"]["status"] == "incomplete"
    assert events[-2]["item"] == events[-1]["response"]["output"][0]
    assert events[-2]["item"]["status"] == "incomplete"
    whole = read(reply(frames(form, max_output_tokens=3, own_limit=True), "hi"), form)
    assert types(whole) == [*types(events)[:-1], "completed"]
    assert whole[-1]["response"]["output"][0]["status"] == whole[-2]["item"]["status"] == "completed"


def test_a_timeout_with_text_is_completed_and_one_without_text_failed() -> None:
    usage = USAGE.as_frame(EndReason.TIMEOUT)
    spoke = frames(own_limit=True)
    events = read(spoke.ack() + spoke.token("So") + spoke.error(ErrorCode.GENERATION_TIMEOUT, "late"))
    assert types(events)[-1] == "output_item.done"
    ended = read(spoke.done(usage))
    assert types(ended) == ["completed"]
    assert ended[0]["response"]["output"][0]["content"][0]["text"] == "So"
    silent = frames()
    failed = read(silent.ack() + silent.error(ErrorCode.GENERATION_TIMEOUT, "too late") + silent.done(usage))
    assert types(failed) == ["created", "in_progress", "failed"]
    assert failed[-1]["response"]["error"] == {"code": "server_error", "message": "too late"}


def test_an_internal_error_fails_with_its_reference() -> None:
    one = frames()
    written = one.ack() + one.token("So") + one.error(ErrorCode.INTERNAL_ERROR, "went wrong", reference="abc")
    events = read(written + one.done(USAGE.as_frame(EndReason.ERROR)))
    assert types(events)[-2:] == ["output_item.done", "failed"]
    assert events[-1]["response"]["output"][0]["status"] == "incomplete"
    assert "abc" in events[-1]["response"]["error"]["message"]
    assert one.ended == "failed"


def test_a_cancelled_reply_ends_incomplete_with_its_text_and_no_reason() -> None:
    one = frames()
    events = read(one.ack() + one.token("Well") + one.token(", so") + one.done(cancelled=True))
    assert types(events)[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    ended = events[-1]["response"]
    assert ended["incomplete_details"] == {"reason": None}
    assert ended["output"][0]["content"][0]["text"] == "Well, so"
    silent = frames()
    assert types(read(silent.ack() + silent.done(cancelled=True))) == ["created", "in_progress", "incomplete"]


def test_calls_come_whole_and_nothing_is_said() -> None:
    one = frames(tools=[TOOL])
    calls = [{"name": "look", "arguments": {"at": "screen"}}, {"name": "look", "arguments": {}}]
    events = read(one.ack() + one.toolcall(calls) + one.final("") + one.done(USAGE.as_frame(EndReason.STOP)))
    added, delta, arguments, done = events[2:6]
    assert types([added, delta, arguments, done]) == [
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"
    ]  # fmt: skip
    assert added["item"]["id"] == delta["item_id"] == arguments["item_id"] == done["item"]["id"]
    assert added["item"]["call_id"] == done["item"]["call_id"]
    assert json.loads(done["item"]["arguments"]) == json.loads(delta["delta"]) == {"at": "screen"}
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["function_call", "function_call"]
    assert [event["output_index"] for event in events if event["type"].endswith("output_item.done")] == [0, 1]
    assert one.output_items()[0] == Item("call", done["item"]["arguments"], done["item"]["call_id"], "look")
    assert read(frames().toolcall([], 0.1)) == []


def test_text_behind_a_call_is_the_next_item() -> None:
    one = frames()
    events = read(one.ack() + one.toolcall([{"name": "look", "arguments": {}}]) + one.token("ok") + one.final("ok"))
    assert {event["output_index"] for event in events if "item_id" in event and event["item_id"].startswith("msg")} == {
        1
    }


def test_a_stream_id_is_in_every_event() -> None:
    events = read(reply(frames(stream_id='a"b'), "x"))
    assert {event["stream_id"] for event in events} == {'a"b'}
    assert all("stream_id" not in event for event in read(reply(frames(), "x")))


def test_a_reply_without_text_is_a_response_without_output() -> None:
    events = read(reply(frames()))
    assert types(events) == ["created", "in_progress", "completed"]
    assert events[-1]["response"]["output"] == []


def test_a_line_of_the_socket_form_holds_no_line_break() -> None:
    one = frames(metadata={"a": "b\nc"}, stream_id="x\ny")
    assert len(reply(one, "line\nline\u2028line\r").split("\n")) == 10

"""Chat completions over the fake engine: OpenAI's own types read every frame, strictly."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from inference.openai.errors import OpenAIError
from inference.openai.sse import Exchange
from personas.snapshot import PhraseRule
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import ANNA, UNLIMITED, catalogue
from tests.inference.openai.exchange import HI, SAID, Reply, surface
from tests.inference.session_lines import held, let_go, text_of


def chunks(reply: Reply) -> list[ChatCompletionChunk]:
    """Every event but the last, as OpenAI's type."""
    assert reply.events[-1] == "[DONE]"
    return [ChatCompletionChunk.model_validate(event, strict=True) for event in reply.events[:-1]]


async def test_a_stream_has_the_form_that_clients_read() -> None:
    async with surface() as served:
        reply = await served.chat_completion(stream=True, stream_options={"include_usage": True})
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-cache"
        assert reply.headers["x-accel-buffering"] == "no"
        assert reply.headers["x-request-id"]
        parts = chunks(reply)
        assert len({part.id for part in parts}) == 1
        assert {part.model for part in parts} == {"anna"}
        assert parts[0].choices[0].delta.role == "assistant"
        assert parts[0].choices[0].delta.content
        assert all(part.choices[0].delta.role is None for part in parts[1:-1])
        assert reply.text == SAID
        assert parts[-2].choices[0].finish_reason == "stop"
        assert parts[-1].choices == []
        usage = parts[-1].usage
        assert usage is not None
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        assert usage.prompt_tokens_details is not None
        assert usage.prompt_tokens_details.cached_tokens == 0
        await served.all_free()


async def test_usage_comes_only_where_asked() -> None:
    async with surface() as served:
        reply = await served.chat_completion(stream=True)
        assert all(part.usage is None for part in chunks(reply))
        assert chunks(reply)[-1].choices[0].finish_reason == "stop"


async def test_without_stream_there_is_one_object() -> None:
    async with surface() as served:
        reply = await served.chat_completion()
        assert reply.headers["content-type"] == "application/json"
        answer = ChatCompletion.model_validate(reply.json, strict=True)
        assert answer.choices[0].message.content == SAID
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.completion_tokens > 0
        assert reply.json["usage"]["prompt_tokens_details"]["cache_write_tokens"] == 0
        await served.all_free()


async def test_a_short_limit_ends_with_length() -> None:
    async with surface() as served:
        for name in ("max_tokens", "max_completion_tokens"):
            reply = await served.chat_completion(**{name: 3})
            assert reply.json["choices"][0]["finish_reason"] == "length"
            assert reply.json["usage"]["completion_tokens"] == 3


async def test_the_prompt_holds_persona_system_text_history_and_the_last_message() -> None:
    messages = [
        {"role": "system", "content": "Speak like a pirate."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": "two"},
        {"role": "developer", "content": "Now be short."},
        {"role": "user", "content": "three", "name": "bob"},
    ]
    async with surface() as served:
        await served.chat_completion(messages=messages)
        prompt = text_of(served.chat.requests[0])
        assert "You are Anna, calm and kind.\n\nSpeak like a pirate." in prompt
        assert "one\n[image]" in prompt
        assert "Now be short.\nthree" in prompt
        assert prompt.index("one") < prompt.index("two") < prompt.index("three")


@pytest.mark.parametrize(
    ("path", "fields"), [("chat/completions", {"messages": HI}), ("completions", {"prompt": "hi"})]
)
async def test_a_client_that_reads_done_finds_its_slot_free(path: str, fields: dict[str, Any]) -> None:
    async with surface() as served:
        active: dict[bytes, int] = {}

        async def send(message: dict[str, Any]) -> None:
            if body := message.get("body"):
                active[body] = (await served.slots.snapshot())["active"]

        request = served.begin(f"/v1/{path}", {"model": "anna", "stream": True, **fields}, send=send)
        await request.end()
        assert list(active.values())[:-1] == [1] * (len(active) - 1)
        last, held_then = list(active.items())[-1]
        assert last.endswith(b"data: [DONE]\n\n")
        assert held_then == 0


async def test_a_field_of_its_own_names_the_user() -> None:
    named = replace(ANNA, chat_prompt="You are Anna. You speak with {{user}}.")
    async with surface(catalogue=catalogue(named)) as served:
        posts: dict[str, dict[str, Any]] = {
            "chat/completions": {"messages": HI}, "responses": {"input": "hi"}, "completions": {"prompt": "hi"}
        }  # fmt: skip
        for path, fields in posts.items():
            asked: dict[str, Any] = {"model": "anna", "user": "user-4711", "user_identity": " Sam ", **fields}
            assert (await served.post(f"/v1/{path}", asked)).status == 200
            assert "You speak with Sam." in text_of(served.chat.requests[-1])
            refused = await served.post(f"/v1/{path}", {**asked, "user_identity": "x" * 65})
            assert (refused.status, refused.json["error"]["param"]) == (400, "user_identity")


async def test_a_key_without_its_own_prompt_cannot_add_system_text() -> None:
    async with surface(caller=replace(UNLIMITED, own_chat_prompt=False)) as served:
        messages = [{"role": "system", "content": "PIRATE"}, *HI]
        assert (await served.chat_completion(messages=messages)).status == 200
        assert "PIRATE" not in text_of(served.chat.requests[0])


async def test_the_bare_model_takes_the_system_text_as_persona() -> None:
    async with surface() as served:
        messages = [{"role": "system", "content": "You are a parrot."}, *HI]
        assert (await served.chat_completion(model="fake", messages=messages)).status == 200
        prompt = text_of(served.chat.requests[0])
        assert "You are a parrot." in prompt
        assert "Anna" not in prompt


async def test_messages_without_a_user_let_the_character_speak_first() -> None:
    async with surface() as served:
        reply = await served.chat_completion(messages=[{"role": "system", "content": "Begin."}])
        assert reply.json["choices"][0]["message"]["content"] == SAID


async def test_sampling_is_clamped_and_strange_fields_are_ignored() -> None:
    strange: dict[str, Any] = {
        "temperature": 0, "top_p": 5, "top_k": -1, "min_p": "0.1", "repetition_penalty": 9, "presence_penalty": -2,
        "frequency_penalty": None, "n": 3, "logprobs": True, "seed": 1, "dry_multiplier": 0.8, "user": "u",
    }  # fmt: skip
    async with surface() as served:
        assert (await served.chat_completion(**strange)).status == 200
        sampling = served.chat.requests[0].sampling
        assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.2, 1.0, 60, 0.1)
        assert (sampling.repeat_penalty, sampling.presence_penalty) == (1.3, 0.0)


async def test_stop_strings_end_the_reply_and_are_not_sent() -> None:
    async with surface() as served:
        for stream in (False, True):
            reply = await served.chat_completion(stop=["how are"], stream=stream)
            text = reply.text if stream else reply.json["choices"][0]["message"]["content"]
            assert text == "Hello there, "
        assert chunks(reply)[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
async def test_banned_phrases_of_the_lists_and_of_the_request_never_leave(stream: bool) -> None:
    lists = catalogue(phrases=(PhraseRule("how are"),))
    async with surface(catalogue=lists) as served:
        reply = await served.chat_completion(banned_strings=["TODAY"], bad_words=["hello there"], stream=stream)
        text = reply.text if stream else reply.json["choices"][0]["message"]["content"]
        assert text
        for phrase in ("how are", "today", "hello there"):
            assert phrase not in text.lower()


async def test_too_many_banned_phrases_are_refused() -> None:
    async with surface() as served:
        assert (await served.chat_completion(banned_strings=[f"x{n}" for n in range(64)])).status == 200
        reply = await served.chat_completion(banned_strings=[f"x{n}" for n in range(65)])
        assert (reply.status, reply.json["error"]["param"]) == (400, "banned_strings")


async def test_logit_bias_reaches_the_engine() -> None:
    async with surface() as served:
        await served.chat_completion(logit_bias={"17": 200, "x": 1, "18": -5})
        assert served.chat.requests[0].logit_bias == {17: 100.0, 18: -5.0}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_slot_at_once(stream: bool) -> None:
    chat = held(2)
    async with surface(chat) as served:
        request = served.begin("/v1/chat/completions", {"model": "anna", "messages": HI, "stream": stream})
        await chat.wait_for_requests(1)
        assert (await served.slots.snapshot())["active"] == 1
        assert served.context.registry.running == 1
        request.leave()
        await request.end()
        assert len(chat.aborted) == 1
        await served.all_free()


async def test_revocation_ends_a_running_stream_with_an_error() -> None:
    chat = held(3)
    async with surface(chat) as served:
        request = served.begin("/v1/chat/completions", {"model": "anna", "messages": HI, "stream": True})
        await request.until(lambda reply: b"Hel" in reply.body)
        for live in served.context.registry:
            await live.revoke()
        reply = await request.end()
        assert reply.events[-1]["error"]["code"] == "invalid_api_key"
        assert b"[DONE]" not in reply.body
        await served.all_free()


async def test_drain_lets_a_response_end_and_cancels_one_that_takes_too_long() -> None:
    chat = held(3)
    async with surface(chat) as served:
        fields = {"model": "anna", "messages": HI}
        request = served.begin("/v1/chat/completions", fields)
        await chat.wait_for_requests(1)
        await served.context.registry.drain(0.01)
        reply = await request.end()
        assert (reply.status, reply.json["error"]["code"]) == (503, "server_draining")
        request = served.begin("/v1/chat/completions", {**fields, "stream": True})
        await chat.wait_for_requests(2)
        draining = asyncio.create_task(served.context.registry.drain(5))
        let_go(chat)
        reply = await request.end()
        await draining
        assert reply.text == SAID
        assert reply.events[-1] == "[DONE]"


async def test_an_engine_that_dies_is_an_event_after_the_head_and_a_status_before() -> None:
    chat = held(3)
    async with surface(chat) as served:
        fields = {"model": "anna", "messages": HI}
        streamed = served.begin("/v1/chat/completions", {**fields, "stream": True})
        gathered = served.begin("/v1/chat/completions", fields)
        await chat.wait_for_requests(2)
        chat.die()
        reply = await streamed.end()
        assert reply.events[-1]["error"]["code"] == "engine_unavailable"
        reply = await gathered.end()
        assert (reply.status, reply.json["error"]["type"]) == (503, "server_error")
        await served.all_free()


async def test_the_head_leaves_with_the_first_text_or_soon_without() -> None:
    chat, sent = held(0), list[dict[str, Any]]()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    fields = {"model": "anna", "messages": HI, "stream": True}
    async with surface(chat) as served:
        quick = served.begin("/v1/chat/completions", fields, send=send)
        await chat.wait_for_requests(1)
        assert sent == []
        let_go(chat)
        await quick.end()
        assert [message["type"] for message in sent[:2]] == ["http.response.start", "http.response.body"]
        assert b'"role":"assistant","content":"' in sent[1]["body"]
        chat.step = asyncio.Semaphore(0)
        slow = served.begin("/v1/chat/completions", fields)
        reply = await slow.until(lambda reply: reply.status == 200)
        assert reply.body == b""
        let_go(chat)
        assert (await slow.end()).text == SAID


async def test_a_comment_that_is_due_stays_out_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.openai.sse.HEAD_WITHIN_S", 0.0)
    sent = list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    exchange = Exchange({"method": "POST", "path": "/v1/chat/completions"}, receive, send)

    async def fail() -> None:
        exchange.begin_stream()
        exchange._fill_silence()  # the time of the head and the failure come in the same turn of the loop
        raise OpenAIError(503, "engine_unavailable", "gone")

    with pytest.raises(OpenAIError) as failure:
        await exchange.unless_gone(fail())
    await exchange.refuse(failure.value)
    await asyncio.sleep(0.01)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 503


async def test_a_silent_stream_gets_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.openai.sse.KEEP_ALIVE_S", 0.02)
    chat = held(0)
    async with surface(chat) as served:
        request = served.begin("/v1/chat/completions", {"model": "anna", "messages": HI, "stream": True})
        await request.until(lambda reply: reply.body.count(b": keep-alive\n\n") >= 2)
        let_go(chat)
        reply = await request.end()
        assert reply.text == SAID


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_a_client_that_takes_no_bytes_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    monkeypatch.setattr("inference.bounded_send.SEND_TIMEOUT_S", 0.05)
    async with surface(FakeEngine(reply=SAID)) as served:

        async def blocked(message: dict[str, Any]) -> None:
            await asyncio.Event().wait()

        fields = {"model": "anna", "messages": HI, "input": HI, "stream": True}
        request = served.begin(path, fields, send=blocked)
        await request.end()
        assert request.reply.status == 0
        await served.all_free()
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

"""F12 and its cousins on ``/v1``: what requests cost before and beside their turns is bounded and counted."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from inference.openai.callers import ENCODINGS, REFUSED
from inference.openai.errors import OpenAIError
from inference.openai.messages import MAX_MESSAGES
from inference.openai.request_tools import decode_tools
from inference.openai.response_lane import MAX_WAITING_CHARS_OF_KEY
from inference.openai.responses_requests import Item
from inference.openai.responses_store import ResponseStore, StoredResponse
from inference.prompting.text_encoder import LONG_TEXT_CHARS, TextEncoder
from inference.protocol.errors import ProtocolError
from inference.protocol.json_text import MAX_CONTAINERS, parse_json
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import UNLIMITED
from tests.inference.openai.exchange import HI, KEY, surface
from tests.inference.openai.responses_line import ResponsesLine
from tests.real_tokenizers import real_tokenizer

MIB = 1024 * 1024


# -- one request ---------------------------------------------------------------------------------------------------


def test_definitions_are_not_repeated_into_gigabytes() -> None:
    """900 kB were 400 MB of schema: 11 s of the serving loop and 3 GB."""
    big = {"type": "string", "description": "x" * 900_000}
    used = {f"p{number}": {"$ref": "#/$defs/a"} for number in range(400)}
    parameters = {"type": "object", "$defs": {"a": big}, "properties": used}
    began = time.process_time()
    with pytest.raises(OpenAIError, match="characters"):
        decode_tools({"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]})
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize(
    "text",
    [
        '{"a":[' + "[]," * 340_000 + "[]]}",
        '{"a":[' + '{"b":1},' * 130_000 + "[]]}",
        '["",' + "[]," * 340_000 + '"\\ud800"]',
    ],
)
def test_a_megabyte_of_empty_lists_is_refused_before_it_is_parsed(text: str) -> None:
    assert len(text) <= MIB
    began = time.process_time()
    with pytest.raises(ProtocolError, match="objects and lists"):
        parse_json(text)
    assert time.process_time() - began < 0.05


def test_brackets_inside_of_texts_are_no_lists() -> None:
    code = '{"a": [1, "\\\\"]}\n' * 20_000
    value = {"text": code, "more": ["[" * MAX_CONTAINERS, '\\"']}
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value)[:-1] + ', "half": "\\ud83d\\\\ud83d"}') == value | {"half": "�\\ud83d"}


async def test_messages_are_bounded_in_number() -> None:
    async with surface() as served:
        reply = await served.chat_completion(messages=HI * (MAX_MESSAGES + 1))
        assert (reply.status, reply.json["error"]["code"]) == (400, "array_above_max_length")


@pytest.mark.thorough
def test_a_long_text_is_encoded_without_the_interpreters_lock() -> None:
    """In a thread, while the serving loop goes on. With the lock held, the gap is as long as the encoding."""
    encoder = TextEncoder(real_tokenizer("qwen3"))
    gaps: list[float] = []
    ended = threading.Event()

    def tick() -> None:
        last = time.monotonic()
        while not ended.is_set():
            time.sleep(0.001)
            last, gap = time.monotonic(), time.monotonic() - last
            gaps.append(gap)

    ticking = threading.Thread(target=tick)
    ticking.start()
    began = time.monotonic()
    encoder.encode("Hello world, this is a text. " * 40_000)
    took = time.monotonic() - began
    ended.set()
    ticking.join()
    assert max(gaps) < took / 3


# -- many requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"{", b'{"messages": 5}', b'{"model": "nobody", "messages": []}'])
async def test_refused_requests_end_in_429(body: bytes) -> None:
    async with surface(caller=UNLIMITED) as served:
        for _ in range(REFUSED.limit):
            assert (await served.post("/v1/chat/completions", raw=body)).status in (400, 404)
        reply = await served.post("/v1/chat/completions", raw=body)
        assert reply.status == 429
        assert 1 <= int(reply.headers["retry-after"]) <= REFUSED.seconds
        assert (await served.chat_completion()).status == 429, "the body is not parsed any more"


async def test_large_refused_requests_end_sooner() -> None:
    async with surface() as served:
        large = b"{" + b"x" * (MIB - 10)
        statuses = [(await served.post("/v1/responses", raw=large)).status for _ in range(REFUSED.limit // 16)]
        assert set(statuses) == {400}
        assert [(await served.post("/v1/responses", raw=b"{")).status for _ in range(15)][-1] == 429


async def test_requests_that_come_too_soon_do_not_shut_a_client_out() -> None:
    caller = replace(UNLIMITED, limits=replace(UNLIMITED.limits, tokens_per_day=0))
    async with surface(caller=caller) as served:
        for _ in range(REFUSED.limit + 5):
            assert (await served.chat_completion()).json["error"]["code"] == "insufficient_quota"
        served.callers[KEY] = UNLIMITED
        served.context.callers._known.clear()
        assert (await served.chat_completion()).status == 200


@pytest.mark.parametrize(("path", "name"), [("/v1/token/encode", "text"), ("/tokenize", "prompt")])
async def test_token_counting_has_a_window_of_its_own(path: str, name: str) -> None:
    async with surface() as served:
        text = "word " * (5 * LONG_TEXT_CHARS // 5)
        answered = 0
        while (reply := await served.post(path, {name: text})).status == 200:
            answered += 1
        assert reply.status == 429
        assert answered == -(-ENCODINGS.limit // 6)
        assert (await served.chat_completion()).status == 200


# -- memory of one key ---------------------------------------------------------------------------------------------


async def test_waiting_requests_are_bounded_over_all_connections_of_a_key() -> None:
    chat = FakeEngine(first=asyncio.Event())
    async with surface(chat, slots=100) as served:
        lines = [ResponsesLine(served) for _ in range(8)]
        refused = 0
        text = "x" * (MIB - 200)
        for line in lines:
            await line.create("hi")
            for _ in range(4):
                await line.create(text)
            refused += sum(event["type"] == "error" for event in line.events)
        assert refused >= 8 * 4 - MAX_WAITING_CHARS_OF_KEY // len(text) - 1
        waiting: Any = served.context.waiting._of
        assert 0 < sum(waiting.values()) <= MAX_WAITING_CHARS_OF_KEY
        for line in lines:
            await line.session.aclose()
        assert not waiting
        await served.all_free()


def test_names_of_calls_count_in_the_store() -> None:
    store = ResponseStore(4000, 10 * MIB)
    for number in range(40):
        items = (Item("call", "{}", call_id=f"{number}" * 400_000, name="x" * 400_000),)
        store.put("k", f"resp_{number}", StoredResponse(items, ()))
    assert store.characters <= 10 * MIB
    held = sum(
        len(item.call_id) + len(item.name)
        for entry in store._owners.get("k", {}).values()
        for item in entry.response.items
    )
    assert held <= 10 * MIB

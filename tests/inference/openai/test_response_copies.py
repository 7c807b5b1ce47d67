"""Another process continues a stored response from its copy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from accounts.callers import Caller
from inference.openai.response_copies import ResponseCopies, decode, encode
from inference.openai.responses_requests import Item
from inference.openai.responses_store import MAX_CONVERSATION_CHARS, StoredResponse
from tests.fakes.copies import MemoryCopies
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import UNLIMITED
from tests.inference.openai.exchange import SAID, Surface, surface
from tests.inference.openai.responses_line import Event, ResponsesLine, said
from tests.inference.session_lines import text_of

TALK = StoredResponse(
    (
        Item("system", "Be kind."),
        Item("user", "hi 😀"),
        Item("call", "{}", "call_1", "light"),
        Item("result", "", "call_1"),
    ),
    (Item("assistant", "Hello"),),
)


@asynccontextmanager
async def process(store: MemoryCopies, secret: str = "s") -> AsyncIterator[Surface]:
    """One process of several that share a store."""
    async with surface(FakeEngine(reply=SAID)) as parts:
        parts.context.copies = ResponseCopies(store, secret)
        yield parts


@asynccontextmanager
async def line_to(parts: Surface, caller: Caller = UNLIMITED) -> AsyncIterator[ResponsesLine]:
    line = ResponsesLine(parts, caller)
    yield line
    await line.session.aclose()


async def respond(parts: Surface, value: str = "hi", /, caller: Caller = UNLIMITED, **fields: Any) -> Event:
    """Send one request on a connection of its own; return its last event."""
    async with line_to(parts, caller) as line:
        return await line.turn(value, **fields)


def name_of(event: Event) -> str:
    return str(event["response"]["id"])


def unknown(event: Event) -> bool:
    return bool(event["type"] == "error" and event["error"]["code"] == "previous_response_not_found")


async def test_another_process_goes_on_with_the_same_conversation() -> None:
    store = MemoryCopies()
    async with process(store) as one, process(store) as other:
        first = await respond(one, "my name is Ada")
        second = await respond(other, "who am I?", previous_response_id=name_of(first))
        assert said(second) == SAID
        third = await respond(one, "again?", previous_response_id=name_of(second))
        prompt = text_of(one.chat.requests[-1])
        assert prompt.index("my name is Ada") < prompt.index("who am I?") < prompt.index("again?")
        assert prompt.count(SAID) == 2
        assert third["response"]["previous_response_id"] == name_of(second)


async def test_a_request_over_http_goes_on_as_well() -> None:
    store = MemoryCopies()
    async with process(store) as one, process(store) as other:
        first = await one.post("/v1/responses", {"model": "anna", "input": "my name is Ada"})
        fields = {"model": "anna", "input": "who am I?", "previous_response_id": first.json["id"]}
        assert (await other.post("/v1/responses", fields)).status == 200
        assert "my name is Ada" in text_of(other.chat.requests[-1])
        fields["previous_response_id"] = "resp_" + 32 * "0"
        refused = await other.post("/v1/responses", fields)
        assert (refused.status, refused.json["error"]["code"]) == (400, "previous_response_not_found")


async def test_the_store_is_asked_for_unknown_ids_alone() -> None:
    store = MemoryCopies()
    async with process(store) as one:
        first = await respond(one)
        await respond(one, previous_response_id=name_of(first))
        assert store.reads == 0
        for name in ("x", "resp_1", name_of(first) + "0", "resp_" + 32 * "G"):  # no id that a server makes
            assert unknown(await respond(one, previous_response_id=name))
        assert store.reads == 0
        assert unknown(await respond(one, previous_response_id="resp_" + 32 * "0"))
        assert store.reads == 1


async def test_another_key_or_secret_finds_nothing() -> None:
    store = MemoryCopies()
    async with process(store) as one, process(store) as other, process(store, "t") as stranger:
        name = name_of(await respond(one))
        assert unknown(await respond(other, caller=replace(UNLIMITED, prefix="other"), previous_response_id=name))
        assert unknown(await respond(other, caller=replace(UNLIMITED, key_id=7), previous_response_id=name))
        assert unknown(await respond(stranger, previous_response_id=name))
        assert not unknown(await respond(other, previous_response_id=name))


async def test_what_is_not_stored_is_not_copied_and_nothing_is_readable() -> None:
    store = MemoryCopies()
    async with process(store) as one:
        await respond(one, store=False)
        assert store.copies == {}
        name = name_of(await respond(one, "a secret of mine"))
        ((key, (_, sealed)),) = store.copies.items()
        assert b"secret" not in sealed
        assert name not in key


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:5], lambda b: bytes(len(b)), lambda b: b""])
async def test_a_damaged_copy_is_no_copy(damage: Callable[[bytes], bytes]) -> None:
    store = MemoryCopies()
    async with process(store) as one, process(store) as other:
        name = name_of(await respond(one))
        ((key, (version, sealed)),) = store.copies.items()
        store.copies[key] = version, damage(sealed)
        assert unknown(await respond(other, previous_response_id=name))


async def test_a_store_that_does_not_answer_delays_a_request_shortly() -> None:
    store = MemoryCopies()
    async with process(store) as one, process(store) as other:
        name = name_of(await respond(one))
        store.answers.clear()
        assert unknown(await respond(other, previous_response_id=name))
        store.answers.set()
        assert not unknown(await respond(other, previous_response_id=name))


async def test_the_copy_is_as_short_as_the_stored_response() -> None:
    store = MemoryCopies()
    async with process(store) as one, process(store) as other:
        copies = other.context.copies
        assert copies is not None
        texts = [Item("user", "x" * 1000) for _ in range(MAX_CONVERSATION_CHARS // 500)]
        stored = one.context.responses.put("owner", "r", StoredResponse(tuple(texts), ()))
        copies.put(UNLIMITED, "resp_" + 32 * "a", stored)
        found = await copies.get(UNLIMITED, "resp_" + 32 * "a")
        assert found is not None
        assert sum(len(item.text) for item in found.items) <= MAX_CONVERSATION_CHARS


def test_everything_of_a_conversation_is_in_its_copy() -> None:
    assert decode(encode(TALK)) == TALK


@pytest.mark.parametrize("data", [b"", b"x", encode(TALK)[:-3]])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(data)

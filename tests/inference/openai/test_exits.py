"""No phrase leaves at any exit of the OpenAI surface: streams and whole answers, at any length, cut short after any
token, and not in the next prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from inference.serving_context import SessionPolicy
from inference.turn_plan import TurnPolicy
from tests.fakes.serving import ANNA, catalogue
from tests.inference.openai.exchange import HI, Reply, surface
from tests.inference.phrases.test_phrase_exits import RULES, STYLES, Wanting, leaks
from tests.inference.session_lines import text_of

PATHS = ("/v1/chat/completions", "/v1/completions")


def fields(path: str, **more: Any) -> dict[str, Any]:
    asked = {"messages": HI} if path.endswith("chat/completions") else {"prompt": "hi"}
    return {"model": "anna", **asked, **more}


def text(reply: Reply, stream: bool) -> str:
    """All text of an answer to either endpoint."""
    bodies = [event for event in reply.events if event != "[DONE]"] if stream else [reply.json]
    choices = [choice for body in bodies for choice in body.get("choices", [])]
    parts = [
        choice.get("text") or (choice.get("delta") or choice.get("message") or {}).get("content") for choice in choices
    ]
    return "".join(filter(None, parts))


def lists(style: str) -> Any:
    return catalogue(replace(ANNA, output_style=style), phrases=RULES)


@STYLES
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
async def test_at_any_length(path: str, stream: bool, style: str) -> None:
    seen = set()
    async with surface(Wanting(), catalogue=lists(style)) as served:
        for limit in range(1, 30, 2):
            said = text(await served.post(path, fields(path, stream=stream, max_tokens=limit)), stream)
            assert not leaks(said), said
            seen.add(said)
    assert len(seen) > 3


@STYLES
@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_that_is_cut_short(path: str, style: str) -> None:
    for given in range(0, 48, 3):
        chat = Wanting(given)
        async with surface(chat, catalogue=lists(style)) as served:
            request = served.begin(path, fields(path, stream=True))
            await chat.drained()
            request.leave()
            reply = await request.end()
            assert not leaks(text(reply, True)), reply.body
            await served.all_free()
            if path == PATHS[0] and (said := text(reply, True)):
                chat.step, chat.wishes = None, ("ok",)
                messages = [*HI, {"role": "assistant", "content": said}, *HI]
                await served.post(path, fields(path, messages=messages))
                assert not leaks(text_of(chat.requests[-1]).rpartition("kind.")[2]), said


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_that_times_out(stream: bool) -> None:
    policy = SessionPolicy(turn=TurnPolicy(reply_timeout_s=0.03))
    for given in (0, 20):
        async with surface(Wanting(given), catalogue=lists("raw"), policy=policy) as served:
            reply = await served.post(PATHS[0], fields(PATHS[0], stream=stream))
            if given:
                said = text(reply, stream)
                assert said
                assert not leaks(said)
                last = reply.events[-2] if stream else reply.json
                assert last["choices"][0]["finish_reason"] == "length"
            else:
                error = reply.events[-1]["error"] if stream else reply.json["error"]
                assert error["code"] == "generation_timeout"
            await served.all_free()

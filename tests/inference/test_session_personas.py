"""The persona of a session: selection, changes by chat_prompt, and warm-ups."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from accounts.callers import Window
from inference.engines.base import PRIORITY_LIVE, PRIORITY_WARM, EngineRole
from inference.engines.sampling import Sampling
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import ANNA, MAX, START, catalogue, talking
from tests.inference.session_lines import (
    PATIENT,
    SAID,
    held,
    let_go,
    limited,
    prompts,
    starts_with,
    text_of,
)

# -- who the character is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({}, ANNA.chat_prompt),
        ({"chat_prompt": "You are Zoe."}, "You are Zoe."),
        ({"persona": "max"}, MAX.chat_prompt),
        ({"persona": "max", "chat_prompt": "You are Zoe."}, "You are Zoe."),
        ({"persona": "max", "gender": None, "personality": None}, MAX.chat_prompt),
        ({"gender": "man", "personality": "DRY"}, MAX.chat_prompt),
        ({"persona_text": "You are Zoe.", "personality": "odd"}, "You are Zoe."),
    ],
)
async def test_whose_prompt_it_is(fields: dict[str, Any], prompt: str) -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        await line.turn(**fields)
        assert prompts(chat)[-1].startswith(f"<|im_start|>system\n{prompt}<|im_end|>\n")


async def test_a_session_keeps_its_persona_until_another_is_named() -> None:
    chat = FakeEngine(reply=SAID)
    bare = {"gender": None, "personality": None}
    async with talking(chat) as line:
        await line.turn(chat_prompt="You are Zoe.", personality="odd")
        assert (await line.turn(**bare))[0]["personality"] == "odd"
        await line.turn(personality="odd", gender="female")
        await line.turn(gender="m", personality="dry")
        ack = (await line.turn(**bare))[0]
        assert (ack["gender"], ack["personality"]) == ("male", "dry")
        systems = [re.search(r"system\n(.*?)<", text) for text in prompts(chat)]
        zoe, dry = "You are Zoe.", MAX.chat_prompt
        assert [found and found[1] for found in systems] == [zoe, zoe, zoe, dry, dry]


async def test_the_tool_prompt_of_a_start_holds_for_its_session() -> None:
    tool = FakeEngine(EngineRole.TOOL, lambda _: "[]")
    with_tool = replace(MAX, tool_prompt="Max decides.")
    async with talking(FakeEngine(), tool, turn=PATIENT, catalogue=catalogue(ANNA, with_tool)) as line:
        await line.turn()
        await line.turn(tool_prompt="We decide.")
        await line.turn()
        await line.turn(persona="max", gender=None, personality=None)
        await line.turn(session_id="other")
        texts = prompts(tool)
        assert "take_screenshot" in texts[0]
        assert "We decide." in texts[1]
        assert "We decide." in texts[2]
        assert "Max decides." in texts[3]
        assert "take_screenshot" in texts[4]


async def test_sampling_holds_until_another_start_gives_one() -> None:
    chat = FakeEngine(reply=SAID)
    warm = replace(ANNA, sampling={"temperature": 0.4, "top_k": 11})
    async with talking(chat, catalogue=catalogue(warm, MAX)) as line:
        await line.turn()
        await line.turn(sampling={"temperature": 0.9})
        await line.turn()
        await line.turn(top_p="0.7")
        await line.turn(persona="max", gender=None, personality=None, sampling={})
        base = Sampling()
        assert [request.sampling for request in chat.requests] == [
            replace(base, temperature=0.4, top_k=11),
            replace(base, temperature=0.9, top_k=11),
            replace(base, temperature=0.9, top_k=11),
            replace(base, temperature=0.4, top_k=11, top_p=0.7),
            base,
        ]


async def test_user_identity_is_told_to_the_persona() -> None:
    chat = FakeEngine(reply=SAID)
    bob = replace(ANNA, chat_prompt="You know {{user}}.")
    async with talking(chat, catalogue=catalogue(bob)) as line:
        await line.turn()
        await line.turn(user_identity="Bob")
        edited = catalogue(replace(bob, chat_prompt="You like {{user}}."), version=2)
        resolver = line.serving.resolver
        resolver.phrases.install(resolver.phrases.compile(edited))
        await line.turn(gender=None, personality=None)
        found = [re.search(r"You (know|like) (.*?)\.", text) for text in prompts(chat)]
        assert [match and match[0] for match in found] == ["You know the user.", "You know Bob.", "You like Bob."]


# -- chat_prompt -----------------------------------------------------------------------------------


async def test_chat_prompt_swaps_the_persona_and_keeps_the_history() -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        await line.turn()
        ack = await line.ask({"type": "chat_prompt", "gender": "man", "personality": "Dry", "request_id": 1})
        assert ack == {
            "type": "ack", "for": "chat_prompt", "ok": True, "code": 200, "message": "updated", "gender": "male",
            "personality": "dry", "request_id": "1",
        }  # fmt: skip
        await chat.wait_for_requests(2)
        warmed = chat.requests[1]
        assert (warmed.priority, warmed.max_tokens) == (PRIORITY_WARM, 1)
        await line.turn(gender=None, personality=None)
        request = chat.requests[-1]
        assert request.priority == PRIORITY_LIVE
        assert MAX.chat_prompt in text_of(request)
        assert ANNA.chat_prompt not in text_of(request)
        assert SAID in text_of(request)
        assert starts_with(request.prompt_ids, warmed.prompt_ids)


async def test_chat_prompt_without_a_change() -> None:
    async with talking(caller=limited(persona_updates=Window(1, 60))) as line:
        await line.turn()
        same = {"type": "ack", "for": "chat_prompt", "ok": True, "code": 204, "message": "no change"}
        for fields in ({"gender": "female"}, {"persona_style": "CALM"}, {"persona": "anna"}):
            assert await line.ask({"type": "chat_prompt", **fields}) == same
        assert (await line.ask({"type": "chat_prompt", "persona": "max"}))["code"] == 200


async def test_chat_prompt_by_gender_keeps_the_prompt_of_the_session() -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        await line.turn(chat_prompt="You are Zoe.", personality="odd")
        assert (await line.ask({"type": "chat_prompt", "gender": "male"}))["code"] == 200
        await line.turn(gender=None, personality=None)
        assert "You are Zoe." in prompts(chat)[-1]


@pytest.mark.parametrize(
    ("fields", "code", "error_code"),
    [
        ({}, 400, "missing_chat_prompt"),
        ({"gender": "x"}, 400, "invalid_gender"),
        ({"personality": "1"}, 400, "invalid_personality"),
        ({"chat_prompt": 5}, 400, "invalid_chat_prompt"),
        ({"persona": "nobody"}, 400, "unknown_persona"),
        ({"gender": "male", "tool_prompt": "x"}, 400, "tool_prompt_update_not_allowed"),
        ({"gender": "male", "chat_prompt": "word " * 5000}, 413, "chat_prompt_too_long"),
    ],
)
async def test_a_chat_prompt_that_is_refused(fields: dict[str, Any], code: int, error_code: str) -> None:
    chat = held()
    async with talking(chat) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        ack = await line.ask({"type": "chat_prompt", "request_id": "q", **fields})
        message = ack.pop("message")
        assert message
        assert ack == {
            "type": "ack", "for": "chat_prompt", "ok": False, "code": code, "error_code": error_code,
            "request_id": "q",
        }  # fmt: skip
        let_go(chat)  # the running turn is untouched
        await line.until_done()
        assert line.text() == SAID
        assert ANNA.chat_prompt in prompts(chat)[-1]


async def test_chat_prompt_updates_have_a_window_of_their_own() -> None:
    caller = limited(persona_updates=Window(2, 60), messages=Window(4, 60))
    async with talking(caller=caller) as line:
        await line.turn()
        for gender in ("male", "female"):
            assert (await line.ask({"type": "chat_prompt", "gender": gender}))["code"] == 200
        for _ in range(5):  # refused ones take no slot of the other window either
            ack = await line.ask({"type": "chat_prompt", "gender": "male"})
            assert (ack["ok"], ack["code"], ack["error_code"]) == (False, 429, "chat_prompt_update_rate_limited")
            assert 58 <= ack["retry_in"] <= 60
        assert (await line.turn())[-1]["type"] == "done"
        ack = await line.ask({"type": "chat_prompt", "gender": "male"})
        assert (ack["code"], ack["error_code"]) == (429, "message_rate_limited")


async def test_chat_prompt_while_a_turn_runs_holds_from_the_next() -> None:
    chat = held()
    async with talking(chat) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        assert (await line.ask({"type": "chat_prompt", "persona": "max"}))["code"] == 200
        let_go(chat)
        await line.until_done()
        assert line.text() == SAID
        await line.turn(gender=None, personality=None)
        assert MAX.chat_prompt in prompts(chat)[-1]
        assert SAID in prompts(chat)[-1]


# -- warming ---------------------------------------------------------------------------------------


async def test_warm_persona_primes_what_a_start_then_uses() -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        frame = await line.ask({"type": "warm_persona", "chat_prompt": "You are Zoë.", "request_id": "w"})
        assert frame == {"type": "warmed", "segment": "persona_static", "bytes": 13, "request_id": "w"}
        warmed = chat.requests[0]
        assert (warmed.priority, warmed.max_tokens) == (PRIORITY_WARM, 1)
        await line.turn(persona_text="You are Zoë.")
        assert starts_with(chat.requests[1].prompt_ids, warmed.prompt_ids)


async def test_warm_history_primes_what_a_start_then_uses() -> None:
    chat = FakeEngine(reply=SAID)
    past = "User: a\nAssistant: bé"
    async with talking(chat) as line:
        assert (await line.ask({"type": "warm_history", "history_text": past}))["type"] == "warmed"  # no persona yet
        await line.turn()
        frame = await line.ask({"type": "warm_history", "history_text": past})
        assert frame == {"type": "warmed", "segment": "history", "bytes": len(past.encode())}
        warmed = chat.requests[-1]
        await line.turn(history_text=past)
        assert starts_with(chat.requests[-1].prompt_ids, warmed.prompt_ids)
        assert "assistant\nbé" in text_of(warmed)


async def test_warming_touches_no_running_turn_and_no_record() -> None:
    chat = held()
    async with talking(chat) as line:
        await line.say(START)
        await chat.wait_for_requests(1)
        await line.say({"type": "warm_history", "history_text": "User: secret\nAssistant: b"})
        await line.say({"type": "warm_persona", "chat_prompt": "You are Zoe."})
        let_go(chat)
        await line.until_done()
        assert line.text() == SAID
        await line.turn()
        assert "secret" not in prompts(chat)[-1]
        assert "Zoe" not in prompts(chat)[-1]


async def test_warming_that_fails_is_told() -> None:
    chat = FakeEngine(reply=SAID)
    async with talking(chat) as line:
        chat.die()
        for message in (
            {"type": "warm_persona", "chat_prompt": "You.", "request_id": 1},
            {"type": "warm_history", "history_text": "", "request_id": 1},
        ):
            frame = await line.ask(message)
            assert (frame["error_code"], frame["request_id"]) == ("engine_unavailable", "1")

"""Whole conversations with the demo model: text, tool decision, history and usage."""

from __future__ import annotations

import json
import re

import pytest

from tests.server import YapServer
from tests.wsclient import PROMPT, Answer, Client, client

pytestmark = pytest.mark.engine

# Long enough that the size of a cache block (32 tokens) hardly changes a ratio.
LONG_PROMPT = PROMPT + " " + " ".join(f"Ada's lamp number {n} shines over bay number {n + 3}." for n in range(20))
MAX_OUT = 150
QUESTIONS = ("Hello, who are you?", "I like pizza.", "What can you see from your tower?", "Good night, Ada.")


def _is_whole(turn: Answer, number: int) -> None:
    """Check the frames of one turn, their order and the sums in `usage`."""
    assert turn.kinds[-3:] == ["token", "final", "done"]
    assert {frame["turn"] for frame in turn.frames} == {number}
    assert turn.text == turn["final"]["normalized_text"] != ""
    usage = turn.usage
    tokens = [frame for frame in turn.frames if frame["type"] == "token"]
    assert 0 < len(tokens) <= usage["completion_tokens"] <= MAX_OUT
    assert 0 <= usage["cached_tokens"] < usage["prompt_tokens"]
    assert 0 < usage["ttft_ms"] <= usage["total_ms"]
    assert usage["finish_reason"] == ("length" if usage["completion_tokens"] == MAX_OUT else "stop")


async def test_a_turn(demo_server: YapServer) -> None:
    async with client(demo_server.ws_url, demo_server.api_key) as yap:
        turn = await yap.say("I like pizza.", request_id=7)
    assert turn.kinds == ["ack", "toolcall", "token", "final", "done"]
    _is_whole(turn, 1)
    assert {frame["request_id"] for frame in turn.frames} == {"7"}
    ack = turn["ack"]
    assert re.fullmatch(r"\d\d/\d\d/\d{4} \w+ \d\d:\d\d [AP]M \((Night|Morning|Afternoon|Evening)\)", ack["now"])
    assert (ack["for"], ack["ok"], ack["session_id"], ack["chat_prompt"]) == ("start", True, "s1", True)
    assert (ack["gender"], ack["personality"]) == ("female", "warm")
    assert turn["toolcall"] | {"request_id": "7"} == turn["toolcall"]
    assert (turn["toolcall"]["status"], turn["toolcall"]["raw"]) == ("no", [])
    assert turn.usage["tool_prompt_tokens"] > 100
    assert 0 < turn.usage["tool_completion_tokens"] <= 3
    assert turn.usage["tool_ms"] <= turn.usage["ttft_ms"]


async def _looks_at_the_screen(yap: Client) -> None:
    """Check a yes, its reply, and the followup as a turn of its own."""
    no = await yap.say("I like pizza.")
    assert no["toolcall"]["status"] == "no"
    yes = await yap.say("Can you see what is on my screen?")
    assert yes.kinds == ["ack", "toolcall", "token", "final", "done"]
    assert yes["toolcall"]["status"] == "yes"
    assert yes["toolcall"]["raw"] == [{"name": "take_screenshot", "arguments": {}}]
    _is_whole(yes, 2)
    await yap.send("followup", analysis_text="A photo of a red bicycle.", user_utterance="not looked at")
    seen = await yap.until("done")
    assert seen.kinds == ["token", "final", "done"]
    _is_whole(seen, 3)
    assert (seen.usage["tool_prompt_tokens"], seen.usage["tool_ms"]) == (0, None)
    assert seen.usage["prompt_tokens"] > yes.usage["prompt_tokens"] + yes.usage["completion_tokens"]


async def test_a_look_at_the_screen(demo_server: YapServer) -> None:
    async with client(demo_server.ws_url, demo_server.api_key) as yap:
        await _looks_at_the_screen(yap)


async def test_a_look_at_the_screen_decided_first(demo_server_sequential: YapServer) -> None:
    async with client(demo_server_sequential.ws_url, demo_server_sequential.api_key) as yap:
        await _looks_at_the_screen(yap)
        turn = await yap.say("And how are you?")
        _is_whole(turn, 4)
        assert turn.usage["tool_ms"] < turn.usage["ttft_ms"]


@pytest.mark.parametrize("sends_all", [False, True], ids=["record", "history_text"])
async def test_what_was_said_is_computed_once(demo_server: YapServer, sends_all: bool) -> None:
    """Holds for the server's own history and for a client that sends its whole history every time."""
    said, history = 0, ""
    async with client(demo_server.ws_url, demo_server.api_key) as yap:
        for number, question in enumerate(QUESTIONS, 1):
            more = {"history_text": history} if sends_all else {}
            turn = await yap.say(question, session_id=f"all-{sends_all}", chat_prompt=LONG_PROMPT, **more)
            _is_whole(turn, number)
            assert turn.usage["prompt_tokens"] > said
            if number > 1:
                assert turn.usage["cached_tokens"] >= 0.9 * said, (number, said, turn.usage)
            said = turn.usage["prompt_tokens"] + turn.usage["completion_tokens"]
            history += f"User: {question}\nAssistant: {turn.text}\n"


async def test_the_character_speaks_first(demo_server: YapServer) -> None:
    async with client(demo_server.ws_url, demo_server.api_key) as yap:
        first = await yap.say()
        assert first.kinds == ["ack", "toolcall", "token", "final", "done"]
        assert first["toolcall"]["status"] == "no"
        assert (first.usage["tool_prompt_tokens"], first.usage["tool_completion_tokens"]) == (0, 0)
        _is_whole(first, 1)
        answer = await yap.say("Hello, Ada.")
        _is_whole(answer, 2)
        assert answer.usage["prompt_tokens"] > first.usage["prompt_tokens"] + first.usage["completion_tokens"]


async def test_a_stored_persona_and_a_change_of_it(demo_server: YapServer) -> None:
    async with client(demo_server.ws_url, demo_server.api_key) as yap:
        await yap.line.send(json.dumps(
            {"type": "start", "session_id": "p", "persona": "mia", "user_utterance": "Hi!", "user_identity": "Sam"}
        ))  # fmt: skip
        mia = await yap.until("done")
        _is_whole(mia, 1)
        assert (mia["ack"]["gender"], mia["ack"]["personality"]) == ("female", "cheerful")
        ack = await yap.ask("chat_prompt", gender="man", personality="Calm", request_id="swap")
        assert ack == {
            "type": "ack", "for": "chat_prompt", "ok": True, "code": 200, "message": "updated", "gender": "male",
            "personality": "calm", "request_id": "swap",
        }  # fmt: skip
        again = await yap.ask("chat_prompt", gender="male", personality="calm")
        assert (again["ok"], again["code"], again["message"]) == (True, 204, "no change")
        tool = await yap.ask("chat_prompt", gender="male", personality="calm", tool_prompt="x")
        assert (tool["ok"], tool["code"], tool["error_code"]) == (False, 400, "tool_prompt_update_not_allowed")
        long = await yap.ask("chat_prompt", gender="male", personality="dry", chat_prompt="word " * 4000)
        assert (long["ok"], long["code"], long["error_code"]) == (False, 413, "chat_prompt_too_long")
        await yap.line.send(json.dumps({"type": "start", "session_id": "p", "user_utterance": "And who are you?"}))
        theo = await yap.until("done")
        _is_whole(theo, 2)
        assert (theo["ack"]["gender"], theo["ack"]["personality"]) == ("male", "calm")
        # The history stayed: the prompt has it beside a persona of about the same length.
        assert theo.usage["prompt_tokens"] > mia.usage["prompt_tokens"] + 0.5 * mia.usage["completion_tokens"]


async def test_warming_is_felt_by_the_first_turn(demo_server: YapServer) -> None:
    prompt = "Warmed before anybody spoke. " + LONG_PROMPT
    history = "User: Hello\nAssistant: " + "The sea is calm tonight. " * 20
    async with client(demo_server.ws_url, demo_server.api_key) as yap:
        warmed = await yap.ask("warm_persona", chat_prompt=prompt, request_id="w")
        assert warmed == {"type": "warmed", "segment": "persona_static", "bytes": len(prompt), "request_id": "w"}
        warmed = await yap.ask("warm_history", history_text=history)
        assert warmed == {"type": "warmed", "segment": "history", "bytes": len(history)}
        turn = await yap.say("Hello, who are you?", chat_prompt=prompt)
        assert turn.usage["cached_tokens"] >= turn.usage["prompt_tokens"] - 64


async def test_sampling_is_checked_and_taken(demo_server: YapServer) -> None:
    async with client(demo_server.ws_url, demo_server.api_key) as yap:
        for sampling, code in (
            ("hot", "invalid_sampling_payload"),
            ({"temperature": "warm"}, "invalid_temperature"),
            ({"temperature": True}, "invalid_temperature"),
            ({"top_k": 3}, "top_k_out_of_range"),
        ):
            await yap.start("Hi", sampling=sampling)
            assert (await yap.receive())["error_code"] == code
        # Lowest temperature and no penalty, twice: the same words.
        cold = {"temperature": "0.2", "top_k": 10, "top_p": 0.6, "min_p": 0.2, "repeat_penalty": 1}
        first, second = [await yap.say("What is two and two?", sampling=cold, session_id=f"cold-{n}") for n in range(2)]
        assert first.text[:20] == second.text[:20]

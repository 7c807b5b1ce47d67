"""Turns that do not run to their end, and messages that arrive during a turn."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.server import YapServer
from tests.wsclient import Answer, Client, Frame, client

pytestmark = pytest.mark.engine


def _cancelled(frame: Frame, turn: int) -> bool:
    return frame == {"type": "done", "cancelled": True, "turn": turn}


async def _engines_idle(server: YapServer, deadline_s: float = 1.0) -> float:
    """Measure the seconds until no engine has a request."""
    began = time.monotonic()
    while True:
        status = await asyncio.to_thread(server.status)
        if not any(told["stats"]["running"] + told["stats"]["waiting"] for told in status["engines"].values()):
            return time.monotonic() - began
        assert time.monotonic() - began < deadline_s, status
        await asyncio.sleep(0.01)


async def _first_token(yap: Client) -> Answer:
    return await yap.until("token")


async def test_six_starts_in_a_row(tiny_server: YapServer) -> None:
    async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
        for number in range(6):
            await yap.start(f"Number {number}", request_id=number)
        for turn in range(1, 6):
            cut = await yap.until("done")
            assert cut["ack"]["turn"] == turn
            assert cut["done"] == {"type": "done", "cancelled": True, "turn": turn, "request_id": str(turn - 1)}
            assert {frame["turn"] for frame in cut.frames} == {turn}
        last = await yap.until("done")
        assert last.kinds == ["ack", "toolcall", "token", "final", "done"]
        assert {frame["turn"] for frame in last.frames} == {6}
        assert last.usage["finish_reason"] in ("length", "stop")
        assert (await yap.ask("ping"))["type"] == "pong"


async def test_barge_in_keeps_what_was_delivered(tiny_server: YapServer) -> None:
    async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
        await yap.start("Tell me a story.")
        heard = [await _first_token(yap)]
        heard += [await yap.until("token") for _ in range(20)]
        await yap.start("Wait.")
        cut = await yap.until("done")
        assert _cancelled(cut["done"], 1)
        sent = sum(part.text != "" for part in heard) + sum(frame["type"] == "token" for frame in cut.frames)
        next_turn = await yap.until("done")
        assert next_turn["ack"]["turn"] == 2
        # The history has the text sent before the interruption, and no unsent text.
        first_prompt = 40
        assert sent / 2 < next_turn.usage["prompt_tokens"] - first_prompt < sent * 2 + 60
    await _engines_idle(tiny_server)


async def test_cancel_before_the_first_token(tiny_server: YapServer) -> None:
    async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
        for turn in range(1, 4):
            await yap.start("Hello")
            await yap.send("cancel")
            cut = await yap.until("done")
            # The tiny model is fast: some text may leave before the cancel arrives, a whole reply may not.
            assert (cut.kinds[0], cut.kinds[-1]) == ("ack", "done")
            assert "final" not in cut.kinds
            assert _cancelled(cut["done"], turn)
        await _engines_idle(tiny_server)
        assert (await yap.say("Hello")).kinds[-1] == "done"


async def test_cancel_in_the_middle_twice_and_idle(tiny_server: YapServer, record_property: object) -> None:
    async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
        waits = []
        for turn in range(1, 6):
            await yap.start("Hello")
            await _first_token(yap)
            asked = time.perf_counter()
            await yap.send("cancel", request_id="c")
            cut = await yap.until("done")
            waits.append((time.perf_counter() - asked) * 1000)
            assert _cancelled(cut["done"], turn)
            assert set(cut.kinds) <= {"token", "done"}
        await yap.send("cancel", request_id="idle")
        assert await yap.receive() == {"type": "done", "cancelled": True, "request_id": "idle"}
        await yap.line.send("  __CANCEL__\n")
        assert await yap.receive() == {"type": "done", "cancelled": True}
        await yap.line.send('{"cancel": true}')
        assert await yap.receive() == {"type": "done", "cancelled": True}
        assert await _engines_idle(tiny_server) < 1.0
        print(f"cancel to done: {sorted(waits)[len(waits) // 2]:.1f} ms, longest {max(waits):.1f} ms")
        assert sorted(waits)[2] < 500


async def test_two_cancels_for_one_turn(tiny_server: YapServer) -> None:
    async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
        await yap.start("Hello")
        await _first_token(yap)
        await yap.send("cancel")
        await yap.send("cancel")
        assert _cancelled((await yap.until("done"))["done"], 1)
        assert await yap.receive() == {"type": "done", "cancelled": True}


async def test_heard_cuts_the_record(tiny_server: YapServer) -> None:
    async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
        first = await yap.say("Tell me a story.")
        whole = first.usage["prompt_tokens"] + first.usage["completion_tokens"]
        second = await yap.say("Go on.", heard=12)
        # At most one token per character of the twelve, plus the tokens of this turn.
        assert first.usage["prompt_tokens"] < second.usage["prompt_tokens"] < first.usage["prompt_tokens"] + 12 + 40
        assert second.usage["prompt_tokens"] < whole
        await yap.send("cancel", heard=0)
        assert (await yap.receive())["cancelled"] is True
        third = await yap.say("Go on.")
        assert third.usage["prompt_tokens"] < second.usage["prompt_tokens"] + second.usage["completion_tokens"]


async def test_a_turn_does_not_hold_up_the_connection(tiny_server: YapServer) -> None:
    """Pings, bad input and warm-ups are answered during a turn, and the turn is unaffected."""
    async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
        await yap.start("Tell me a story.")
        await _first_token(yap)
        await yap.send("ping", request_id="p")
        await yap.send("dance", request_id="d")
        await yap.send("start", user_utterance="no session id")
        await yap.send("warm_persona", chat_prompt="Somebody else.")
        await yap.send("pong")
        frames = [await yap.receive()]
        while frames[-1]["type"] != "done":
            frames.append(await yap.receive())
        others = [frame for frame in frames if "turn" not in frame]
        assert {"type": "pong", "request_id": "p"} in others
        assert [frame["error_code"] for frame in others if frame["type"] == "error"] == [
            "unknown_message_type", "missing_session_id",
        ]  # fmt: skip
        assert [frame["segment"] for frame in others if frame["type"] == "warmed"] == ["persona_static"]
        assert frames[-1]["usage"]["finish_reason"] in ("length", "stop")


@pytest.mark.parametrize("words", ["__END__", '{"end": true}', '{"type": " END "}'])
async def test_end_in_the_middle(tiny_server: YapServer, words: str) -> None:
    async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
        await yap.start("Tell me a story.")
        await _first_token(yap)
        await yap.line.send(words)
        assert await yap.closed() == 1000
        assert yap.seen[-1] == {"type": "connection_closed", "reason": "client_request"}
    await _engines_idle(tiny_server)


async def test_a_client_that_vanishes(tiny_server: YapServer) -> None:
    """During a turn and without a close frame: slot and engine requests are free within a second."""
    async with client(tiny_server.ws_url, tiny_server.api_key) as yap:
        await yap.start("Tell me a story.")
        await _first_token(yap)
        before = await asyncio.to_thread(tiny_server.status)
        assert (before["connections"]["active"], before["turns_running"]) == (1, 1)
        gone = time.monotonic()
        yap.vanish()
        while True:
            status = await asyncio.to_thread(tiny_server.status)
            free = time.monotonic() - gone
            if not status["connections"]["active"] and not status["turns_running"]:
                break
            assert free < 1.0, status
        await _engines_idle(tiny_server, 1.0 - free)
        print(f"a vanished client's place and requests are free after {(time.monotonic() - gone) * 1000:.0f} ms")


async def test_two_connections_with_one_session_id(tiny_server: YapServer) -> None:
    async with (
        client(tiny_server.ws_url, tiny_server.api_key) as one,
        client(tiny_server.ws_url, tiny_server.api_key) as other,
    ):
        turns = await asyncio.gather(one.say("Hello", request_id="one"), other.say("Hello", request_id="other"))
        for turn, name in zip(turns, ("one", "other"), strict=True):
            assert turn.kinds == ["ack", "toolcall", "token", "final", "done"]
            assert {(frame["request_id"], frame["turn"]) for frame in turn.frames} == {(name, 1)}
        await one.start("Again")
        await _first_token(one)
        await other.send("cancel")
        assert await other.receive() == {"type": "done", "cancelled": True}
        rest = await one.until("done")
        assert rest.usage["finish_reason"] in ("length", "stop")
        # This session's history has nothing of the other session.
        assert rest.usage["prompt_tokens"] < 2 * turns[0].usage["prompt_tokens"] + turns[0].usage["completion_tokens"]

"""The interactive client at a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients_suite.conftest import Serve
from tests.clients_suite.running import run_client
from tests.clients_suite.scripted_server import REPLY, Script
from tests.clients_suite.terminal_user import at_terminal

pytestmark = pytest.mark.processes
LONG = " ".join(f"word{number}" for number in range(400))


async def test_reply_streams_and_the_terminal_is_left_as_it_was(serve: Serve, tmp_path: Path) -> None:
    server = await serve(Script(token_delay=0.01))
    async with at_terminal("live", "--server", server.url, "--api-key", "right-key", cwd=tmp_path) as user:
        before = user.modes()
        await user.sees("you> ")
        assert user.modes() != before
        user.presses("Helloo\x7f Yap\r")
        await user.sees("Robin: ")
        await user.sees(REPLY)
        await user.sees("you> ")
        assert server.starts()[0]["user_utterance"] == "Hello Yap"
        user.presses("/quit\r")
        assert await user.leaves() == 0
        assert user.modes() == before


async def test_typing_holds_the_reply_and_enter_interrupts_it(serve: Serve, tmp_path: Path) -> None:
    server = await serve(Script(token_delay=0.02, reply=LONG))
    async with at_terminal("live", "--server", server.url, "--api-key", "right-key", cwd=tmp_path) as user:
        await user.sees("you> ")
        user.presses("Tell me everything\r")
        await user.sees("word5 ")
        user.presses("Wait")
        await user.sees("you> Wait")
        user.presses(", stop\r")
        await user.sees("you> Wait, stop\n")
        await user.sees("Robin: word0 ")
        first, second = server.starts()
        assert second["user_utterance"] == "Wait, stop"
        shown = user.text.partition("Robin: ")[2].partition("\n")[0].removesuffix(" (interrupted)")
        assert second["heard"] == len(shown)
        assert LONG.startswith(shown)
        assert "history_text" not in first.keys() | second.keys()


async def test_an_emptied_line_lets_the_reply_go_on(serve: Serve, tmp_path: Path) -> None:
    server = await serve(Script(token_delay=0.03))
    async with at_terminal("live", "--server", server.url, "--api-key", "right-key", cwd=tmp_path) as user:
        await user.sees("you> ")
        user.presses("Hello\r")
        await user.sees("Mara.")
        user.presses("x")
        await user.sees("you> x")
        user.presses("\x7f")
        await user.sees("cake.")
        await user.sees("you> ")
        spoken = user.text.partition("Robin: ")[2].replace("\n", "").replace("you> x", "").partition("you> ")[0]
        assert spoken == REPLY
        assert len(server.starts()) == 1


async def test_ctrl_c_stops_the_reply_and_twice_leaves(serve: Serve, tmp_path: Path) -> None:
    server = await serve(Script(token_delay=0.02, reply=LONG))
    async with at_terminal("live", "--server", server.url, "--api-key", "right-key", cwd=tmp_path) as user:
        await user.sees("you> ")
        user.presses("Go on\r")
        await user.sees("word3 ")
        user.presses("\x03")
        await user.sees("(stopped)")
        await user.sees("you> ")
        assert [message["type"] for message in server.received][-1] == "cancel"
        user.presses("\x03")
        assert await user.leaves() == 0


async def test_ctrl_c_with_nothing_running_asks_for_another(serve: Serve, tmp_path: Path) -> None:
    server = await serve(Script())
    async with at_terminal("live", "--server", server.url, "--api-key", "right-key", cwd=tmp_path) as user:
        await user.sees("you> ")
        user.presses("\x03")
        await user.sees("Press Ctrl+C again to exit.")
        user.presses("\x03")
        assert await user.leaves() == 0


async def test_a_dropped_line_is_opened_again_with_the_history(serve: Serve, tmp_path: Path) -> None:
    server = await serve(Script(die_after_tokens=3))
    async with at_terminal("live", "--server", server.url, "--api-key", "right-key", cwd=tmp_path) as user:
        await user.sees("you> ")
        user.presses("Hello\r")
        await user.sees("Hello there, Mara. (cut off)")
        await user.sees("broke off; reconnecting.")
        await user.sees("Reconnected")
        user.presses("Are you there?\r")
        await user.sees(REPLY)
        assert server.connections == 2
        again = server.starts()[1]
        assert again["history_text"] == "User: Hello\nAssistant: Hello there, Mara."
        assert again["chat_prompt"] == server.starts()[0]["chat_prompt"]


async def test_a_line_that_drops_before_the_first_word_asks_again(serve: Serve, tmp_path: Path) -> None:
    server = await serve(Script(die_after_tokens=0))
    async with at_terminal("live", "--server", server.url, "--api-key", "right-key", cwd=tmp_path) as user:
        await user.sees("you> ")
        user.presses("Hello\r")
        await user.sees("reconnecting and sending the message again")
        await user.sees(REPLY)
        assert [message["user_utterance"] for message in server.starts()] == ["Hello", "Hello"]


async def test_personas_come_from_the_file_and_from_the_server(serve: Serve, tmp_path: Path) -> None:
    stored = [{"slug": "maya", "name": "Maya", "gender": "female", "personality": "dry"}]
    server = await serve(Script(personas=stored))
    file = tmp_path / "mine.json"
    one = {"name": "Ada", "gender": "female", "personality": "calm", "chat_prompt": "You are Ada."}
    file.write_text(json.dumps({"ada": one}))
    where = ("--server", server.url, "--api-key", "right-key", "--personas", str(file))
    async with at_terminal("live", *where, cwd=tmp_path) as user:
        await user.sees("talking with Ada (female, calm)")
        user.presses("Hello\r")
        await user.sees(REPLY)
        user.presses("/personas\r")
        await user.sees("ada: Ada (female, calm)")
        await user.sees("maya: Maya (female, dry)")
        user.presses("/persona Maya\r")
        await user.sees("Now talking with Maya (female, dry).")
        assert server.received[-1]["persona"] == "maya"
        user.presses("/persona ada\r")
        await user.sees("Now talking with Ada")
        file.write_text(json.dumps({"ada": {**one, "chat_prompt": ["You are Ada,", "and you sail."]}}))
        await user.sees("mine.json has changed")
        user.presses("And now?\r")
        await user.sees(REPLY)
        assert server.starts()[-1]["chat_prompt"] == "You are Ada,\nand you sail."
        file.write_text("{")
        await user.sees("cannot read the personas")
        user.presses("/persona nobody\r")
        await user.sees("There is no persona nobody")


async def test_commands(serve: Serve, tmp_path: Path) -> None:
    server = await serve(Script(tool="yes"))
    async with at_terminal("live", "--server", server.url, "--api-key", "right-key", cwd=tmp_path) as user:
        for line, answer in (
            ("/history", "The conversation is empty."),
            ("/stats", "No turn yet."),
            ("/help", "/persona NAME"),
            ("/nonsense", "There is no /nonsense"),
            ("Hello", "The character asks for your screen (take_screenshot)"),
            ("/stats", "So far: 1 turns"),
            ("/screen a weather page", REPLY),
            ("/history", "· User: Hello"),
            ("/reset", "Forgotten"),
            ("Again", "The character asks for your screen"),
        ):
            await user.sees("you> ")
            user.presses(line + "\r")
            await user.sees(answer)
        assert server.starts()[-1]["history_text"] == ""
        assert next(m for m in server.received if m["type"] == "followup")["analysis_text"] == "a weather page"


async def test_a_reply_cannot_move_the_cursor(serve: Serve, tmp_path: Path) -> None:
    server = await serve(Script(reply="safe \x1b[2J\x07and sound"))
    async with at_terminal("live", "--server", server.url, "--api-key", "right-key", cwd=tmp_path) as user:
        await user.sees("you> ")
        user.presses("Hello\r")
        await user.sees("and sound")
        assert "\x1b[2J" not in user.raw
        assert "\x07" not in user.raw


async def test_in_a_pipe_each_line_is_a_turn(serve: Serve) -> None:
    server = await serve(Script(token_delay=0.005))
    lines = "Hello\n\n/persona otto\nWho are you?"
    done = await run_client("live", "--server", server.url, typed=lines)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[1:] == [
        "You: Hello",
        f"Robin: {REPLY}",
        "You: /persona otto",
        "· Now talking with Otto (male, curious).",
        "You: Who are you?",
        f"Otto: {REPLY}",
    ]
    assert [message["user_utterance"] for message in server.starts()] == ["Hello", "Who are you?"]

"""The client library: addresses, frames, times, turns, and reconnects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from terminal.editor import Draft, Editor, End, Submit
from yapclient import (
    Ack,
    Backoff,
    BadAddress,
    ConnectionLost,
    ConnectionRefused,
    Dialogue,
    Done,
    Event,
    Final,
    NoServer,
    Persona,
    PersonaFile,
    RequestRefused,
    Server,
    Timing,
    Token,
    ToolCall,
    TurnFailed,
    YapError,
    connect,
    open_connection,
    server_personas,
)
from yapclient.events import decode

from tests.clients_suite.conftest import Serve
from tests.clients_suite.scripted_server import REPLY, Script
from tests.examples import examples

ADA = Persona("female", "calm", "You are Ada.", "ada", "Ada")


@pytest.mark.parametrize(
    ("text", "url", "http"),
    [
        ("127.0.0.1:8000", "ws://127.0.0.1:8000/ws", "http://127.0.0.1:8000/api/"),
        ("localhost:9/", "ws://localhost:9/ws", "http://localhost:9/api/"),
        ("https://yap.example", "wss://yap.example/ws", "https://yap.example/api/"),
        ("wss://yap.example/here/ws", "wss://yap.example/here/ws", "https://yap.example/here/api/"),
        ("http://[::1]:8000", "ws://[::1]:8000/ws", "http://[::1]:8000/api/"),
        (" ws://h/ws?api_key=K&x=1 ", "ws://h/ws?x=1", "http://h/api/"),
    ],
)
def test_addresses(text: str, url: str, http: str) -> None:
    server = Server.parse(text)
    assert (server.url, server.http("/api/")) == (url, http)


def test_the_key_is_the_given_one_then_the_addresss_then_the_environments() -> None:
    def key(text: str, **keys: str | None) -> str | None:
        return Server.parse(text, **keys).api_key

    assert key("ws://h/ws?api_key=A", api_key="B", fallback_key="C") == "B"
    assert key("ws://h/ws?api_key=A", fallback_key="C") == "A"
    assert key("ws://h/ws", fallback_key="C") == "C"
    assert key("h") is None
    assert "A" not in str(Server.parse("ws://h/ws?api_key=A"))


@pytest.mark.parametrize("text", ["", "ftp://h", "ws://", "h:notaport", "http://h:99999", "a b"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadAddress):
        Server.parse(text)


@examples(50)
@given(st.binary() | st.recursive(st.none() | st.text(), lambda c: st.lists(c)).map(lambda v: json.dumps(v).encode()))
def test_any_frame_is_an_event(data: bytes) -> None:
    assert isinstance(decode(data, 0.0), Event)


@pytest.mark.parametrize("kind", ["ack", "toolcall", "token", "final", "done", "error", "warmed", "pong"])
@pytest.mark.parametrize("value", [None, 3, "text", [1], {"a": 1}])
def test_fields_of_any_type_are_borne(kind: str, value: object) -> None:
    names = ("text", "usage", "raw", "status", "ok", "code", "error_code", "message", "retry_in", "capacity")
    fields = dict.fromkeys((*names, "normalized_text", "turn", "request_id", "gender", "cancelled"), value)
    event = decode(json.dumps({**fields, "type": kind}), 0.0)
    for name, member in vars(type(event)).items():
        if isinstance(member, property):
            assert isinstance(getattr(event, name), str | int | float | list | dict | None), name


def test_times_are_of_whole_words_and_sentences() -> None:
    timing = Timing(started=0.0)
    for at, text in enumerate(["Pi is", " 3", ".14", " or", " so. ", "Next"], start=1):
        timing.token(text, at)
    timing.end(9.0)
    assert (timing.first_token, timing.three_words, timing.first_sentence, timing.last_token) == (1, 4, 5, 6)
    assert timing.gaps == [1] * 5
    short = Timing(started=0.0)
    short.token("All done here.", 1.0)
    short.end(2.0)
    assert (short.three_words, short.first_sentence) == (1.0, 1.0)


def test_waits_grow_and_are_as_long_as_asked() -> None:
    backoff = Backoff(attempts=3, first=1.0, longest=8.0)
    assert all(2.0 <= backoff.wait(3) <= 4.0 for _ in range(50))
    assert all(4.0 <= backoff.wait(60) <= 8.0 for _ in range(50))
    assert all(30.0 <= backoff.wait(1, retry_in=30.0) <= 33.0 for _ in range(50))
    assert [backoff.exhausted(failures) for failures in (2, 3)] == [False, True]


async def test_a_turn_is_an_iterator_of_typed_events(serve: Serve) -> None:
    server = await serve(Script(tool="yes"))
    async with connect(server.url, "right-key") as yap:
        turn = yap.turn("Hello", persona=ADA)
        kinds = [type(event) async for event in turn]
        assert kinds == [Ack, ToolCall, *[Token] * 17, Final, Done]
        assert (turn.text, turn.reply, turn.usage["completion_tokens"]) == (REPLY, REPLY, 17)
        assert turn.tool is not None
        assert turn.tool.names == ["take_screenshot"]
        assert (await yap.followup("a cat").finish()).reply == REPLY
    assert server.received[-1] == {"type": "end"}


@pytest.mark.parametrize("bare", [False, True])
async def test_barge_in_and_cancel(serve: Serve, bare: bool) -> None:
    server = await serve(Script(token_delay=0.005, bare=bare, tool=None))
    async with connect(server.url, "right-key") as yap:
        first = yap.turn("Hello", persona=ADA)
        async for event in first:
            if isinstance(event, Token):
                break
        second = await yap.barge_in("Wait")
        await first.finish()
        assert first.cancelled
        assert first.text.startswith("Hello")
        async for event in second:
            if isinstance(event, Token):
                await second.cancel()
        assert second.cancelled
        assert server.starts()[1]["heard"] == len("Hello")
        await yap.cancel()  # without a running turn; its `done` does not belong to the next turn
        third = await yap.turn("And now").finish()
        assert (third.cancelled, third.text) == (False, REPLY)


async def test_persona_updates(serve: Serve) -> None:
    server = await serve(Script(updates=1, update_retry_in=7))
    async with connect(server.url, "right-key") as yap:
        ack = await yap.chat_prompt(Persona(slug="maya"))
        assert ack.code == 200
        with pytest.raises(RequestRefused, match="too many persona updates") as refused:
            await yap.chat_prompt(ADA)
        assert refused.value.retry_in == 7
        assert server.received[-2]["persona"] == "maya"


async def test_errors_end_a_turn(serve: Serve) -> None:
    server = await serve(Script(error_mid_turn="generation_timeout"))
    async with connect(server.url, "right-key") as yap:
        with pytest.raises(TurnFailed, match="generation_timeout"):
            await yap.turn("Hello", persona=ADA).finish()
        assert yap.lost is None


async def test_retry_in_is_honoured(serve: Serve) -> None:
    server = await serve(Script(full_times=2, refuse_as="server_not_ready", retry_in=0.1))
    waits: list[tuple[YapError, float]] = []
    backoff = Backoff(attempts=3, first=0.001)
    async with connect(
        server.url, "right-key", backoff=backoff, on_wait=lambda error, seconds: waits.append((error, seconds))
    ):
        assert [error.code for error, _ in waits] == ["server_not_ready"] * 2
        assert all(seconds >= 0.1 for _, seconds in waits)
    assert server.connections == 3


async def test_what_cannot_be_retried_is_not(serve: Serve) -> None:
    server = await serve(Script())
    with pytest.raises(ConnectionRefused) as refused:
        await open_connection(server.url, "wrong", backoff=Backoff(attempts=5))
    assert (refused.value.code, refused.value.close_code) == ("authentication_failed", 1008)
    assert server.connections == 1
    with pytest.raises(NoServer, match="HTTP 404"):
        await open_connection(f"ws://127.0.0.1:{server.port}/elsewhere")


async def test_a_dialogue_survives_its_connection(serve: Serve) -> None:
    server = await serve(Script(die_after_tokens=3))
    dialogue = Dialogue(Server(server.url, "right-key"), ADA)
    turn = await dialogue.say("Hello")
    with pytest.raises(ConnectionLost):
        await turn.finish()
    dialogue.keep("Hello", turn)
    turn = await (await dialogue.say("Still there?")).finish()
    dialogue.keep("Still there?", turn)
    turn = await (await dialogue.say("Good")).finish()
    dialogue.keep("Good", turn)
    await dialogue.close()
    _, after, later = server.starts()
    assert after["history_text"] == "User: Hello\nAssistant: Hello there, Mara."
    assert after["chat_prompt"] == "You are Ada."
    assert not {"history_text", "chat_prompt"} & later.keys()


async def test_a_dialogue_comes_back_after_draining_and_says_so(serve: Serve) -> None:
    server = await serve(Script(drain_after_turn=0.1))
    waits: list[tuple[YapError, float]] = []
    dialogue = Dialogue(
        Server(server.url, "right-key"), ADA, on_wait=lambda error, seconds: waits.append((error, seconds))
    )
    turn = await (await dialogue.say("Hello")).finish()
    dialogue.keep("Hello", turn)
    assert turn.text == REPLY
    assert dialogue.connection is not None
    lost = await dialogue.connection.wait_lost()
    assert isinstance(lost, ConnectionLost)
    assert (lost.close_code, lost.code, lost.reconnect_in) == (1012, "server_draining", 0.1)
    turn = await (await dialogue.say("Still there?")).finish()
    await dialogue.close()
    assert turn.text == REPLY
    assert [error for error, _ in waits] == [lost]
    assert 0.1 <= waits[0][1] <= 0.11
    assert server.connections == 2
    _, first, again = server.starts()
    assert "history_text" not in first  # the server may have the record
    assert again["history_text"] == f"User: Hello\nAssistant: {REPLY}"
    assert first["session_id"] == again["session_id"] == server.starts()[0]["session_id"]


def test_persona_files(tmp_path: Path) -> None:
    path = tmp_path / "personas.json"
    file = PersonaFile(path)
    with pytest.raises(YapError, match="No such file"):
        file.refresh()
    assert file.refresh() is False
    path.write_text('{"results": [{"slug": "eve", "gender": "Female", "personality": "Dry"}, {"no": "slug"}]}')
    assert file.refresh() is True
    assert file.find("EVE") == Persona("female", "dry", None, "eve", "eve")
    assert file.refresh() is False
    path.write_text("[")
    with pytest.raises(YapError, match="cannot read"):
        file.refresh()
    assert file.by_style("female", None) is not None


async def test_personas_of_the_server(serve: Serve) -> None:
    stored = [{"slug": "maya", "name": "Maya", "gender": "female", "personality": "dry"}]
    has, has_not = await serve(Script(personas=stored)), await serve(Script())
    assert await server_personas(Server(has.url, "right-key")) == [Persona("female", "dry", None, "maya", "Maya")]
    assert await server_personas(Server(has_not.url, "right-key")) == []
    with pytest.raises(YapError, match="HTTP 401"):
        await server_personas(Server(has.url, "wrong"))


def test_the_line_editor() -> None:
    editor = Editor()
    two = "ß".encode()
    assert editor.feed(two[:1]) == []
    assert editor.feed(two[1:]) == [Draft("ß")]
    editor.clear()
    assert editor.feed("né 日x".encode() + b"\x7f\r") == [Submit("né 日")]
    assert editor.feed(b"one two\x17") == [Draft("one ")]
    assert editor.feed(b"\x15") == [Draft("")]
    assert editor.feed(b"\x1b[A") == [Draft("né 日")]
    assert editor.feed(b"\x1b[B\x1b[C") == [Draft("")]
    assert editor.feed(b"a\x1b") == []
    assert editor.feed(b"\x04") == [End()]

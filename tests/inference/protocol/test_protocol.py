"""Frames to the letter, message types, and input that is no message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.protocol.decoder import MAX_MESSAGE_BYTES, MESSAGE_TYPES, Decoder
from inference.protocol.errors import ProtocolError
from inference.protocol.frames import TurnFrames, encode, error_frame
from inference.protocol.messages import (
    Cancel,
    End,
    Ping,
    Pong,
)
from tests.fakes.serving import RULES
from tests.inference.protocol.decoding import (
    START,
    decode,
    refusal,
)

# -- server to client: the frames of the contract, to the letter -----------------------------------

FRAMES = TurnFrames(3, None)
USAGE = {"prompt_tokens": 7, "ttft_ms": None, "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("frame", "golden"),
    [
        (
            FRAMES.ack(session_id="s", now="n", gender="female", personality="calm", chat_prompt=True),
            '{"type":"ack","for":"start","ok":true,"session_id":"s","now":"n","gender":"female",'
            '"personality":"calm","chat_prompt":true,"turn":3}',
        ),
        (
            FRAMES.toolcall([{"name": "take_screenshot", "arguments": {}}]),
            '{"type":"toolcall","status":"yes","raw":[{"name":"take_screenshot","arguments":{}}],"turn":3}',
        ),
        (FRAMES.toolcall([]), '{"type":"toolcall","status":"no","raw":[],"turn":3}'),
        (FRAMES.token(" hello"), '{"type":"token","text":" hello","turn":3}'),
        (FRAMES.token('"\n\\é😀'), '{"type":"token","text":"\\"\\n\\\\é😀","turn":3}'),
        (FRAMES.final("all"), '{"type":"final","normalized_text":"all","turn":3}'),
        (FRAMES.final(""), '{"type":"final","normalized_text":"","turn":3}'),
        (
            FRAMES.done(USAGE),
            '{"type":"done","usage":{"prompt_tokens":7,"ttft_ms":null,"finish_reason":"stop"},"turn":3}',
        ),
        (FRAMES.done(cancelled=True), '{"type":"done","cancelled":true,"turn":3}'),
        (
            FRAMES.error("generation_timeout", "m", reference="r"),
            '{"type":"error","error_code":"generation_timeout","message":"m","reference":"r","turn":3}',
        ),
        (TurnFrames(4, "q").token("a"), '{"type":"token","text":"a","turn":4,"request_id":"q"}'),
        (TurnFrames(4, "").done(cancelled=True), '{"type":"done","cancelled":true,"turn":4,"request_id":""}'),
        (encode("pong", request_id=None), '{"type":"pong"}'),
        (encode("pong", request_id="7"), '{"type":"pong","request_id":"7"}'),
        (
            encode("connection_closed", reason="client_request"),
            '{"type":"connection_closed","reason":"client_request"}',
        ),
        (
            encode("warmed", segment="persona_static", bytes=1234),
            '{"type":"warmed","segment":"persona_static","bytes":1234}',
        ),
        (
            error_frame(ProtocolError("invalid_message", "m")),
            '{"type":"error","error_code":"invalid_message","message":"m"}',
        ),
        (
            error_frame(ProtocolError("message_rate_limited", "m", request_id="r", retry_in=3)),
            '{"type":"error","error_code":"message_rate_limited","message":"m","request_id":"r","retry_in":3}',
        ),
        (
            error_frame(ProtocolError("chat_prompt_too_long", "m", kind="chat_prompt")),
            '{"type":"ack","for":"chat_prompt","ok":false,"code":413,"error_code":"chat_prompt_too_long","message":"m"}',
        ),
        (
            error_frame(ProtocolError("missing_chat_prompt", "m", kind="chat_prompt", request_id="r")),
            '{"type":"ack","for":"chat_prompt","ok":false,"code":400,"error_code":"missing_chat_prompt","message":"m",'
            '"request_id":"r"}',
        ),
        (
            error_frame(ProtocolError("message_rate_limited", "m", kind="chat_prompt", retry_in=2)),
            '{"type":"ack","for":"chat_prompt","ok":false,"code":429,"error_code":"message_rate_limited","message":"m",'
            '"retry_in":2}',
        ),
    ],
)
def test_frames_are_these_to_the_byte(frame: str, golden: str) -> None:
    assert frame == golden


@given(st.text(st.characters(codec="utf-8")), st.none() | st.text(st.characters(codec="utf-8")))
def test_any_text_survives_a_token_frame(text: str, request_id: str | None) -> None:
    frame = json.loads(TurnFrames(1, request_id).token(text))
    assert frame == {"type": "token", "text": text, "turn": 1} | (
        {} if request_id is None else {"request_id": request_id}
    )


# -- client to server: types -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("__CANCEL__", Cancel),
        ("  __CANCEL__\n", Cancel),
        ("__END__", End),
        ('{"cancel": true}', Cancel),
        ('{"end": true}', End),
        ('{"type": null, "cancel": true}', Cancel),
        ('{"type": "cancel"}', Cancel),
        ('{"type": " CanCel "}', Cancel),
        ('{"type": "END"}', End),
        ('{"type": "ping", "cancel": true}', Ping),
        ('{"type": "\\tPong\\n"}', Pong),
    ],
)
def test_the_type_in_every_spelling(text: str, kind: type) -> None:
    assert type(decode(text)) is kind


def test_sentinels_are_the_operators() -> None:
    decoder = Decoder(RULES, end_sentinel="bye", cancel_sentinel="stop it")
    assert isinstance(decode("bye", decoder), End)
    assert isinstance(decode("stop it", decoder), Cancel)
    assert refusal("__END__", decoder).code == "invalid_message"


@pytest.mark.parametrize("text", ['{"cancel": 1}', '{"cancel": "true"}', '{"cancel": false}', '{"end": null}', "{}"])
def test_only_true_cancels_without_a_type(text: str) -> None:
    assert refusal(text).code == "invalid_message"


def test_every_type_is_known_and_others_are_not() -> None:
    needs = {"analysis_text": "a", "chat_prompt": "p", "history_text": "", "session_id": "s", "turn": 1, "received": 0}
    for kind in MESSAGE_TYPES:
        decode({"type": kind, **needs})
    for unknown in ("token", "started", "çancel", "start ping", "__cancel__"):
        error = refusal({"type": unknown, "request_id": 5})
        assert (error.code, error.request_id) == ("unknown_message_type", "5")
        assert unknown not in error.message


# -- client to server: what is no message ----------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        None,  # a binary frame
        "",
        " ",
        "hello",
        "null",
        "[]",
        '["type", "ping"]',
        '"ping"',
        "1",
        "{",
        '{"type": "ping"',
        "{'type': 'ping'}",
        '{"type": "ping"} {}',
        '\ufeff{"type": "ping"}',
        '{"type": "ping", "x": NaN}',
        '{"type": "ping", "x": Infinity}',
        '{"type": "ping", "x": 1e999}',
        '{"type": "ping", "x": ' + "9" * 5000 + "}",
        '{"type": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"type": "ping", "x": ' + '{"x":' * 100_000 + "1" + "}" * 100_001,
        '{"type": 5}',
        '{"type": true}',
        '{"type": ["start"]}',
        '{"type": {}}',
        '{"type": ""}',
        '{"type": "  "}',
        '{"type": null}',
        '{"type": "ping", "request_id": []}',
        '{"type": "ping", "request_id": {"a": 1}}',
        '{"type": "cancel", "heard": "4"}',
        '{"type": "cancel", "heard": -1}',
        '{"type": "cancel", "heard": 1.5}',
        '{"type": "cancel", "heard": true}',
        '{"type": "cancel", "heard": 1e30}',
    ],
)
def test_not_a_message(text: str | None) -> None:
    error = refusal(text)
    assert error.code == "invalid_message"
    json.loads(error_frame(error))


def test_a_message_may_have_a_mebibyte_and_no_more() -> None:
    def message(size: int, char: str = "a") -> str:
        head = '{"type":"ping","x":"'
        return head + char * ((size - len(head) - 2) // len(char.encode())) + '"}'

    assert isinstance(decode(message(MAX_MESSAGE_BYTES)), Ping)
    assert refusal(message(MAX_MESSAGE_BYTES + 1)).code == "invalid_message"
    assert isinstance(decode(message(MAX_MESSAGE_BYTES, "😀")), Ping)
    assert refusal(message(MAX_MESSAGE_BYTES + 8, "😀")).code == "invalid_message"
    assert refusal(message(40 * MAX_MESSAGE_BYTES)).code == "invalid_message"
    assert refusal("\ud800" * (MAX_MESSAGE_BYTES // 2)).code == "invalid_message"


@given(st.text())
def test_whatever_is_sent_is_a_message_or_refused(text: str) -> None:
    try:
        decode(text)
    except ProtocolError as error:
        json.loads(error_frame(error))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = (
    "session_id", "user_utterance", "gender", "personality", "persona_style", "persona", "chat_prompt", "persona_text",
    "history_text", "tool_prompt", "sampling", "sampling_params", "temperature", "top_k", "user_identity", "heard",
    "analysis_text", "request_id", "cancel", "end",
)  # fmt: skip


@given(st.sampled_from(MESSAGE_TYPES), st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_type_in_any_field_is_a_message_or_refused(kind: str, fields: dict[str, Any]) -> None:
    try:
        decode({"type": kind, **fields})
    except ProtocolError as error:
        json.loads(error_frame(error))


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        ("abc", "abc"),
        ("", ""),
        (" ", " "),
        (7, "7"),
        (-7, "-7"),
        (2**63, str(2**63)),
        (1.5, "1.5"),
        (True, "true"),
        (False, "false"),
        (None, None),
        ("\x00", "\x00"),
    ],
)
def test_request_id_is_any_scalar_as_text(sent: Any, echoed: str | None) -> None:
    assert decode({"type": "ping", "request_id": sent}).request_id == echoed


def test_unknown_fields_are_ignored() -> None:
    assert decode({**START, "frobnicate": [1, {"a": None}], "type ": 3}) == decode(START)

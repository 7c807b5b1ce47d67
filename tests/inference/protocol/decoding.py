"""Decodes messages for the tests of the protocol."""

from __future__ import annotations

import json
from typing import Any

from inference.protocol.decoder import Decoder
from inference.protocol.errors import ProtocolError
from inference.protocol.messages import (
    Message,
    Start,
)
from tests.fakes.serving import RULES

DECODER = Decoder(RULES)
START = {"type": "start", "session_id": "s1", "gender": "female", "personality": "calm"}


def decode(message: dict[str, Any] | str, decoder: Decoder = DECODER) -> Message:
    text = message if isinstance(message, str) else json.dumps(message)
    return decoder.decode(decoder.open(text))


def start(**fields: Any) -> Start:
    message = decode({**START, **fields})
    assert isinstance(message, Start)
    return message


def refusal(message: dict[str, Any] | str | None, decoder: Decoder = DECODER) -> ProtocolError:
    text = json.dumps(message) if isinstance(message, dict) else message
    try:
        decoder.decode(decoder.open(text))
    except ProtocolError as error:
        return error
    raise AssertionError("it was taken")

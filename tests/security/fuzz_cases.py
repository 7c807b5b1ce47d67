"""The inputs of the fuzzer: every field of every message, card, form and header, at its bound, above, a thousand times.

A field's bound is a number of characters. Where a field has none of its own, the bound of its message, form or request
applies, and the sizes are those of an ordinary value, a large one and one beyond the whole input's bound.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MESSAGE_BYTES = 1024 * 1024
FILLINGS = ("x", "語", "{{user}}", "a b\n")

START: dict[str, Any] = {
    "type": "start", "session_id": "s", "gender": "female", "personality": "calm", "chat_prompt": "You are Zoe.",
    "user_utterance": "Hello.",
}  # fmt: skip
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
# message → field → bound
MESSAGES: Mapping[str, Mapping[str, int]] = {
    "start": {
        "type": 64, "session_id": 256, "request_id": 128, "user_utterance": 2_000, "chat_prompt": 7_200,
        "persona_text": 7_200, "gender": 8, "personality": 20, "persona_style": 20, "persona": 64,
        "history_text": 12_000, "tool_prompt": 5_800, "user_identity": 64, "heard": 15, "heard_unit": 5,
        "sampling": 64, "sampling_params": 64, "unknown": 1_000, **dict.fromkeys(_SAMPLING, 4),
    },
    "chat_prompt": {
        "chat_prompt": 7_200, "persona_text": 7_200, "gender": 8, "personality": 20, "persona_style": 20,
        "persona": 64, "tool_prompt": 5_800, "request_id": 128,
    },
    "followup": {"analysis_text": 2_000, "user_utterance": 2_000, "request_id": 128},
    "warm_persona": {"chat_prompt": 7_200, "persona_text": 7_200, "request_id": 128},
    "warm_history": {"history_text": 12_000, "request_id": 128},
    "cancel": {"heard": 15, "heard_unit": 5, "request_id": 128},
    "resume": {"session_id": 256, "turn": 15, "received": 15, "received_unit": 5, "request_id": 128},
    "ping": {"request_id": 128},
    "pong": {"request_id": 128},
    "end": {"request_id": 128},
}  # fmt: skip
_BASES: Mapping[str, Mapping[str, Any]] = {
    "start": START, "resume": {"type": "resume", "session_id": "s", "turn": 1, "received": 0},
    "followup": {"type": "followup", "analysis_text": "A window."},
    "warm_persona": {"type": "warm_persona", "chat_prompt": "You are Zoe."},
    "warm_history": {"type": "warm_history", "history_text": "User: a\nAssistant: b"},
    "chat_prompt": {"type": "chat_prompt", "chat_prompt": "You are Ann."},
}  # fmt: skip
CARD: Mapping[str, int] = {
    "name": 100, "nickname": 100, "description": 50_000, "personality": 50_000, "scenario": 50_000,
    "first_mes": 50_000, "mes_example": 50_000, "system_prompt": 50_000, "post_history_instructions": 50_000,
    "creator": 1_000, "creator_notes": 50_000, "character_version": 100,
}  # fmt: skip
HEADERS: Mapping[str, int] = {
    "X-API-Key": 56, "Authorization": 63, "Cookie": 4_096, "Host": 253, "X-Forwarded-For": 256, "User-Agent": 512,
    "Sec-WebSocket-Protocol": 128, "Accept-Language": 256, "Referer": 2_048, "Origin": 256, "Content-Type": 64,
    "Transfer-Encoding": 16, "Content-Length": 8, "Sec-WebSocket-Key": 24, "Upgrade": 16,
    "(path)": 2_048, "(query)": 2_048, "(name)": 64, "(number)": 32, "(parameters)": 32, "(key)": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One input: which surface it goes to, the field, the size in characters, and the value."""

    surface: str
    field: str
    size: int
    value: Any


def sizes(bound: int, most: int) -> list[int]:
    """At the bound, above it, and a thousand times above, as far as the test itself sends so much."""
    return [bound, bound + 1, min(1_000 * bound, most)]


def filled(filling: str, size: int) -> str:
    """``size`` characters."""
    return (filling * (size // len(filling) + 1))[:size]


def message_cases() -> Iterator[Case]:
    """Every field of every message, in every filling; and structures where a scalar belongs."""
    for kind, fields in MESSAGES.items():
        base = _BASES.get(kind, {"type": kind})
        for field, bound in fields.items():
            for size in sizes(bound, 3 * MESSAGE_BYTES):
                for filling in FILLINGS:
                    yield Case(kind, field, size, {**base, field: filled(filling, size)})
            for value in (int("9" * min(bound, 300)), ["x"] * bound, {"x": {"x": [None] * bound}}, 1e308, True):
                yield Case(kind, field, bound, {**base, field: value})
    exchanges = "User: a\nAssistant: b\n"
    for kind in ("start", "warm_history"):
        base = _BASES[kind]
        for count in (600, 601, 49_000):
            yield Case(kind, "history_text", count * len(exchanges), {**base, "history_text": exchanges * count})
        yield Case(kind, "history_text", 1_000_000, {**base, "history_text": "\n" * 1_000_000})
    calls = '{"name": "look", "arguments": {"at": "sky"}} '
    for filling in (calls, "[1, ", '{"a":', '{"name": "a", "parameters": {"b": '):
        for size in sizes(5_800, MESSAGE_BYTES - 1_000):
            yield Case("start", "tool_prompt", size, {**START, "tool_prompt": filled(filling, size)})
    items: dict[str, Any] = {"lists": [], "objects": {}, "numbers": 1.5, "texts": "a"}
    for name, item in items.items():
        for count in sizes(50_000, 340_000):
            yield Case("(raw)", name, count, {**START, "x": [item] * count})
            yield Case("(raw)", name, count, json.dumps({**START, "x": [item] * count, "half": "\ud800"}))
    for text in (
        "[" * 500_000,
        '{"a":' * 150_000,
        "x" * MESSAGE_BYTES,
        "x" * (MESSAGE_BYTES + 1),
        '"' + "\\u0000" * 170_000,
        '{"type":"start","session_id":"' + "\\ud800" * 170_000 + '"}',
        '{"cancel":true,"heard":' + "9" * 1_000_000 + "}",
        '{"end":true,"request_id":"' + "x" * 1_000_000 + '"}',
    ):
        yield Case("(raw)", "text", len(text), text)


def card_cases() -> Iterator[Case]:
    """Every field of a character card, and files of other contents."""
    base = {"name": "b", "description": "A bot."}
    for field, bound in CARD.items():
        for size in sizes(bound, 3_000_000):
            for filling in ("x", "{{char}}<bot>"):
                yield Case("card", field, size, _card({**base, field: filled(filling, size)}))
    for field in ("alternate_greetings", "tags"):
        for count in sizes(64, 300_000):
            yield Case("card", field, count, _card({**base, field: ["x"] * count}))
    for field in ("extensions", "character_book", "unknown"):
        for count in sizes(64, 64_000):
            yield Case("card", field, count, _card({**base, field: {f"k{number}": [] for number in range(count)}}))
    for name, data in (("brackets", b"["), ("text", b"x"), ("zip", b"PK\x03\x04"), ("png", b"\x89PNG\r\n\x1a\n")):
        for size in (3 * MESSAGE_BYTES, 10 * MESSAGE_BYTES, 10 * MESSAGE_BYTES + 1, 11 * MESSAGE_BYTES):
            yield Case("card file", name, size, data * (size // len(data)))


def _card(data: Mapping[str, Any]) -> bytes:
    return json.dumps({"spec": "chara_card_v2", "data": data}).encode()


def header_cases() -> Iterator[Case]:
    """Every header, their names and number, and the path and the query string."""
    for field, bound in HEADERS.items():
        for size in sizes(bound, 4 * MESSAGE_BYTES):
            yield Case("header", field, size, "x" * size)

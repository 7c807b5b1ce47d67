"""The inputs of the fuzzer: every field of every message, card, form and header, at its bound, above, a thousand times.

A field's bound is a number of characters. Where a field has none of its own, the bound of its message, form or request
applies, and the sizes are those of an ordinary value, a large one and one beyond the whole input's bound.
"""

from __future__ import annotations

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
        "sampling": 64, "unknown": 1_000, **dict.fromkeys(_SAMPLING, 4),
    },
    "chat_prompt": {"chat_prompt": 7_200, "gender": 8, "personality": 20, "persona": 64, "tool_prompt": 5_800},
    "followup": {"analysis_text": 2_000, "user_utterance": 2_000, "request_id": 128},
    "warm_persona": {"chat_prompt": 7_200, "persona_text": 7_200, "request_id": 128},
    "warm_history": {"history_text": 12_000, "request_id": 128},
    "cancel": {"heard": 15, "heard_unit": 5, "request_id": 128},
    "ping": {"request_id": 128},
    "end": {"request_id": 128},
}  # fmt: skip
CARD: Mapping[str, int] = {
    "name": 100, "nickname": 100, "description": 50_000, "personality": 50_000, "scenario": 50_000,
    "first_mes": 50_000, "mes_example": 50_000, "system_prompt": 50_000, "post_history_instructions": 50_000,
    "creator": 1_000, "creator_notes": 50_000, "character_version": 100,
}  # fmt: skip
KEY_FORM: Mapping[str, int] = {
    "name": 100, "note": 2_000, "max_messages": 10, "tokens_per_day": 19, "own_password": 4_096, "expires_at_0": 10,
}  # fmt: skip
PERSONA_FORM: Mapping[str, int] = {
    "name": 100, "slug": 64, "personality": 20, "chat_prompt": 50_000, "tool_prompt": 50_000, "temperature": 4,
}  # fmt: skip
LOGIN_FORM: Mapping[str, int] = {"username": 150, "password": 4_096, "next": 1_000}
HEADERS: Mapping[str, int] = {
    "X-API-Key": 56, "Authorization": 63, "Cookie": 4_096, "Host": 253, "X-Forwarded-For": 256, "User-Agent": 512,
    "Sec-WebSocket-Protocol": 128, "Accept-Language": 256, "Referer": 2_048, "Origin": 256,
    "(path)": 2_048, "(query)": 2_048,
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
        base = START if kind == "start" else {"type": kind}
        for field, bound in fields.items():
            for size in sizes(bound, 3 * MESSAGE_BYTES):
                for filling in FILLINGS:
                    yield Case(kind, field, size, {**base, field: filled(filling, size)})
            for value in (int("9" * min(bound, 300)), ["x"] * bound, {"x": {"x": [None] * bound}}, 1e308, True):
                yield Case(kind, field, bound, {**base, field: value})
    exchanges = "User: a\nAssistant: b\n"
    for kind in ("start", "warm_history"):
        base = START if kind == "start" else {"type": kind}
        for count in (600, 601, 49_000):
            yield Case(kind, "history_text", count * len(exchanges), {**base, "history_text": exchanges * count})
        yield Case(kind, "history_text", 1_000_000, {**base, "history_text": "\n" * 1_000_000})
    for text in (
        "[" * 500_000,
        '{"a":' * 150_000,
        "x" * MESSAGE_BYTES,
        "x" * (MESSAGE_BYTES + 1),
        '"' + "\\u0000" * 170_000,
    ):
        yield Case("(raw)", "text", len(text), text)


def form_cases(surface: str, fields: Mapping[str, int], base: Mapping[str, Any], most: int) -> Iterator[Case]:
    """Every field of a form; ``base`` is valid."""
    for field, bound in fields.items():
        for size in sizes(bound, most):
            for filling in ("x", "{{char}}<bot>"):
                yield Case(surface, field, size, {**base, field: filled(filling, size)})


def header_cases() -> Iterator[Case]:
    """Every header, and the path and the query string."""
    for field, bound in HEADERS.items():
        for size in sizes(bound, 4 * MESSAGE_BYTES):
            yield Case("header", field, size, "x" * size)

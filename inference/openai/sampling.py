"""Sampling fields of a request, under the names that clients use, clamped to the server's ranges.

A value outside its range is moved into the range, and a value of another kind counts as absent: clients send their
defaults, such as temperature 0, and stop working after a 400.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inference.engines.base import Engine
from inference.engines.sampling import INTEGER_KEYS, SAMPLING_KEYS, SamplingRules
from inference.openai.errors import invalid

MAX_STOPS = 16
MAX_BANNED = 64
MAX_PHRASE_CHARS = 256
MAX_BIASED_TOKENS = 300
MAX_BIAS = 100.0

_ALIASES: Mapping[str, tuple[str, ...]] = {
    "repeat_penalty": ("repetition_penalty", "repeat_penalty", "rep_pen"),
}
_MAX_TOKENS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_length")
_STOPS = ("stop", "stop_sequence", "stopping_strings")
_BANNED = ("banned_strings", "bad_words")


@dataclass(frozen=True, slots=True)
class RequestSampling:
    """What a request says about drawing and ending its text.

    Args:
        overrides: sampling keys within the server's ranges.
        max_tokens: the limit of the reply; None: the server's.
        stop: texts that end the reply and are not sent.
        banned: further banned phrases, exact in any letter case.
        logit_bias: token id to bias.
    """

    overrides: Mapping[str, float] = field(default_factory=dict)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    banned: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)


def read_sampling(fields: Mapping[str, Any], rules: SamplingRules) -> RequestSampling:
    """Read the sampling fields of a request.

    Args:
        fields: the request's body.
        rules: the server's ranges.

    Raises:
        OpenAIError: more banned phrases than allowed, or a longer one.
    """
    overrides: dict[str, float] = {}
    for key in SAMPLING_KEYS:
        value = _first_number(fields, _ALIASES.get(key, (key,)))
        if value is not None:
            overrides[key] = _clamped(key, value, rules)
    most = _first_number(fields, _MAX_TOKENS)
    stops = [text for name in _STOPS for text in _texts(fields.get(name)) if len(text) <= MAX_PHRASE_CHARS]
    return RequestSampling(
        overrides,
        max(1, int(most)) if most is not None and most > 0 else None,
        tuple(dict.fromkeys(stops))[:MAX_STOPS],
        _banned(fields),
        _biases(fields.get("logit_bias")),
    )


def _clamped(key: str, value: float, rules: SamplingRules) -> float:
    low, high = rules.ranges[key]
    if key == "top_k" and value <= 0:  # off
        value = high
    value = min(max(value, low), high)
    return int(value) if key in INTEGER_KEYS else value


def _first_number(fields: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        value = fields.get(name)
        if isinstance(value, bool) or value is None:
            continue
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(number):
            return number
    return None


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    return [text for text in value if isinstance(text, str) and text] if isinstance(value, list) else []


def _banned(fields: Mapping[str, Any]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(text for name in _BANNED for text in _texts(fields.get(name)) if text.strip()))
    if len(found) > MAX_BANNED or any(len(text) > MAX_PHRASE_CHARS for text in found):
        message = f"at most {MAX_BANNED} banned phrases of at most {MAX_PHRASE_CHARS} characters"
        raise invalid(message, next(name for name in _BANNED if fields.get(name)))
    return found


def _biases(value: Any) -> dict[int, float]:
    if not isinstance(value, dict):
        return {}
    found: dict[int, float] = {}
    for token, bias in value.items():
        if len(found) == MAX_BIASED_TOKENS:
            break
        if str(token).isdecimal() and len(str(token)) <= 7 and isinstance(bias, int | float) and math.isfinite(bias):
            found[int(token)] = min(max(float(bias), -MAX_BIAS), MAX_BIAS)
    return found


def known_tokens(biases: Mapping[int, float], engine: Engine | None) -> Mapping[int, float]:
    """Return the biases of tokens that an engine's vocabulary has: engines fail a request with another one."""
    if not biases or engine is None:
        return biases
    most = len(engine.tokenizer)
    return {token: bias for token, bias in biases.items() if token < most}

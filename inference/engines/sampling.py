"""Sampling parameters: the server's defaults, the ranges for clients, and the overrides of one message."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

INTEGER_KEYS = frozenset({"top_k"})


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of a request, by the wire's names; `repeat_penalty` is vLLM's `repetition_penalty`."""

    temperature: float = 1.0
    top_p: float = 0.80
    top_k: int = 40
    min_p: float = 0.05
    repeat_penalty: float = 1.05
    presence_penalty: float = 0.05
    frequency_penalty: float = 0.05


SAMPLING_KEYS: tuple[str, ...] = tuple(Sampling.__dataclass_fields__)
GREEDY = Sampling(
    temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, repeat_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0
)


class SamplingError(ValueError):
    """A sampling field is unusable; `error_code` is the wire's code."""

    def __init__(self, error_code: str, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code


@dataclass(frozen=True, slots=True)
class SamplingRules:
    """The server's defaults, and the inclusive (low, high) range of each key."""

    defaults: Sampling
    ranges: Mapping[str, tuple[float, float]]

    def merge(self, overrides: Mapping[str, float], base: Sampling | None = None) -> Sampling:
        """Return `base` (None: the server's defaults) with checked `overrides`."""
        return replace(base or self.defaults, **dict(overrides))  # type: ignore[arg-type]

    def check(self, key: str, value: Any) -> float | int:
        """Convert one value to a number in its range.

        Raises:
            SamplingError: `invalid_<key>` or `<key>_out_of_range`.
        """
        number = _number(value)
        if number is None or (key in INTEGER_KEYS and number != int(number)):
            kind = "a whole number" if key in INTEGER_KEYS else "a number"
            raise SamplingError(f"invalid_{key}", f"{key} must be {kind}")
        low, high = self.ranges[key]
        if not low <= number <= high:
            raise SamplingError(f"{key}_out_of_range", f"{key} must be between {low:g} and {high:g}")
        return int(number) if key in INTEGER_KEYS else number

    def overrides(self, payload: Mapping[str, Any]) -> dict[str, float] | None:
        """Read the sampling keys of one message.

        `sampling` (or `sampling_params`) is an object. Keys at the top level are accepted too; the object wins. Null
        counts as absent.

        Returns:
            The values, or None if the message has none.
        """
        nested = payload.get("sampling")
        if nested is None:
            nested = payload.get("sampling_params")
        if nested is not None and not isinstance(nested, dict):
            raise SamplingError("invalid_sampling_payload", "sampling must be an object")
        found: dict[str, float] = {}
        for key in SAMPLING_KEYS:
            value = nested.get(key) if nested else None
            if value is None:
                value = payload.get(key)
            if value is not None:
                found[key] = self.check(key, value)
        return found if found or nested is not None else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value.strip())
        except ValueError:
            return None
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None

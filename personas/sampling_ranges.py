"""Ranges of the sampling fields: the operator's (from the environment) and the widest that an engine takes."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.deconstruct import deconstructible

# Inclusive (low, high), as vLLM's SamplingParams checks them; upper bounds that vLLM leaves open are chosen here. The
# database refuses values beyond.
SAMPLING_BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 5.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 32_767),
    "min_p": (0.0, 1.0),
    "repeat_penalty": (0.0, 5.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
SAMPLING_KEYS = tuple(SAMPLING_BOUNDS)


def sampling_range(key: str) -> tuple[float, float]:
    """Return the inclusive (low, high) range in force for a sampling key (``CHAT_<KEY>_MIN``, ``CHAT_<KEY>_MAX``)."""
    ranges: Mapping[str, tuple[float, float]] = settings.SAMPLING_RANGES
    return ranges[key]


def clamp(key: str, value: float) -> float:
    """Return the value, or the nearest end of the range in force: the environment may have changed since the save."""
    low, high = sampling_range(key)
    return min(max(value, low), high)


@deconstructible
class InSamplingRange:
    """Validator of one sampling field. The range is read when a value is checked, so migrations do not hold it."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, value: float) -> None:
        low, high = sampling_range(self.key)
        if not low <= value <= high:
            raise ValidationError(f"Must be between {low:g} and {high:g}.", code="sampling_range")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InSamplingRange) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

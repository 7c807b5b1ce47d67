from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.sampling import SAMPLING_KEYS, Sampling, SamplingError
from tests.fakes.serving import RANGES, RULES

# What the protocol says, written out again.
ALLOWED = {
    "temperature": (0.2, 1.2),
    "top_p": (0.6, 1.0),
    "top_k": (10, 60),
    "min_p": (0, 0.20),
    "repeat_penalty": (1.0, 1.3),
    "presence_penalty": (0, 0.15),
    "frequency_penalty": (0, 0.15),
}


def code(key: str, value: Any) -> str:
    with pytest.raises(SamplingError) as caught:
        RULES.check(key, value)
    return caught.value.error_code


def test_the_keys_are_the_protocols() -> None:
    assert set(SAMPLING_KEYS) == set(ALLOWED) == set(RANGES)


@pytest.mark.parametrize("key", SAMPLING_KEYS)
def test_a_range_includes_its_ends_and_nothing_beyond(key: str) -> None:
    low, high = ALLOWED[key]
    step = 1 if key == "top_k" else 1e-6
    assert RULES.check(key, low) == low
    assert RULES.check(key, high) == high
    assert RULES.check(key, str(high)) == high
    for outside in (low - step, high + step, 1e308, -1e308, 10**400 if key == "top_k" else 2**64, f"{high + step}"):
        expected = f"invalid_{key}" if outside == 10**400 else f"{key}_out_of_range"
        assert code(key, outside) == expected


@pytest.mark.parametrize("key", SAMPLING_KEYS)
@pytest.mark.parametrize("value", [True, False, "hot", "", " ", [], {}, [1], "nan", "inf", "-inf", math.nan, math.inf])
def test_what_is_not_a_number(key: str, value: Any) -> None:
    assert code(key, value) == f"invalid_{key}"


@pytest.mark.parametrize(("value", "taken"), [(20, 20), (20.0, 20), ("20", 20), (" 20.0 ", 20), ("2e1", 20)])
def test_top_k_is_whole(value: Any, taken: int) -> None:
    found = RULES.check("top_k", value)
    assert (found, type(found)) == (taken, int)
    assert code("top_k", 20.5) == code("top_k", "20.5") == "invalid_top_k"


def test_where_overrides_are_found() -> None:
    assert RULES.overrides({}) is None
    assert RULES.overrides({"sampling": None, "temperature": None}) is None
    assert RULES.overrides({"sampling": {}}) == {}
    assert RULES.overrides({"sampling": {"temperature": None, "seed": 5}}) == {}
    assert RULES.overrides({"sampling": {"temperature": 0.5}}) == {"temperature": 0.5}
    assert RULES.overrides({"sampling_params": {"top_p": "0.7"}}) == {"top_p": 0.7}
    assert RULES.overrides({"min_p": 0.1, "sampling": {"top_p": 0.7}}) == {"min_p": 0.1, "top_p": 0.7}
    assert RULES.overrides({"top_p": 0.9, "sampling": {"top_p": 0.7}}) == {"top_p": 0.7}
    assert RULES.overrides({"sampling": {"top_p": 0.7}, "sampling_params": {"top_p": 0.9}}) == {"top_p": 0.7}


@pytest.mark.parametrize("payload", [[], "x", 5, True, False])
def test_a_payload_is_an_object(payload: Any) -> None:
    with pytest.raises(SamplingError) as caught:
        RULES.overrides({"sampling": payload})
    assert caught.value.error_code == "invalid_sampling_payload"


def test_what_is_absent_falls_back_to_the_default() -> None:
    assert RULES.merge({}) == Sampling()
    merged = RULES.merge({"temperature": 0.3})
    assert (merged.temperature, merged.top_p) == (0.3, Sampling().top_p)


@given(st.sampled_from(SAMPLING_KEYS), st.floats() | st.integers() | st.text() | st.booleans() | st.none())
def test_any_value_is_in_range_or_refused_by_name(key: str, value: Any) -> None:
    try:
        found: float | str = RULES.check(key, value)
    except SamplingError as error:
        found = error.error_code
    low, high = ALLOWED[key]
    assert found in (f"invalid_{key}", f"{key}_out_of_range") if isinstance(found, str) else low <= found <= high

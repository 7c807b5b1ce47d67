"""Further arguments of vLLM's engine: which are taken, and which would break Yap. The import of vLLM takes seconds."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from inference.engines import engine_args
from inference.engines.arguments import plan
from inference.engines.engine_args import checked_engine_args
from inference.engines.spec import ModelRefused
from tests.inference.engines.test_parallel import CHAT, MODEL, NODE

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def known() -> set[str]:
    """The names of the installed vLLM's engine arguments."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    return {field.name for field in fields(AsyncEngineArgs)}


def test_engine_args_of_this_vllm_are_taken(known: set[str]) -> None:
    given = {"enable_lora": True, "seed": 7, "enable_prefix_caching": True}
    assert checked_engine_args(replace(CHAT, engine_args=given), known) == given
    assert plan(replace(CHAT, engine_args=given), NODE, MODEL).facts["engine_args"] == sorted(given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"enable_lorra": True}, "no engine argument 'enable_lorra'"),
        ({"enable_prefix_caching": False}, "must stay True: every turn continues a cached prefix"),
        ({"scheduling_policy": "fcfs"}, "must stay 'priority'"),
        ({"max_model_len": 9}, "set CHAT_MAX_LEN, not max_model_len"),
        ({"tensor_parallel_size": 2}, "set CHAT_TENSOR_PARALLEL"),
        ({"speculative_config": {"method": "ngram"}}, "banned phrases need them"),
        ({"tokenizer": "x"}, "tokenizer cannot be changed"),
    ],
)
def test_engine_args_that_break_yap_are_refused(given: dict[str, Any], reason: str, known: set[str]) -> None:
    with pytest.raises(ModelRefused, match=f"CHAT_ENGINE_ARGS: .*{reason}"):
        checked_engine_args(replace(CHAT, engine_args=given), known)


def test_every_checked_name_exists(known: set[str]) -> None:
    assert {*engine_args._HAS_A_VARIABLE, *engine_args._NEEDED} <= known

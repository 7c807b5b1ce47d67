"""The arithmetic of GPUs: checked against figures computed by hand, and the command that prints them."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from inference.engines.device import GIB
from inference.engines.model_config import ModelConfig
from inference.engines.sizing import GPU_KINDS, RESERVE, size_engine
from inference.engines.spec import ModelRefused

# 32 layers, 8 KV heads of 128: 65,536 values a token, 128 KiB in 16 bits.
LLAMA_8B = ModelConfig("LlamaForCausalLM", 131072, None, None, 2 * 32 * 8 * 128, 128, 16 * GIB, heads=32, layers=32)
# 80 layers, 8 KV heads of 128: 320 KiB a token.
LLAMA_70B = ModelConfig("LlamaForCausalLM", 131072, None, None, 2 * 80 * 8 * 128, 128, 141 * GIB, heads=64, layers=80)


def test_one_gpu_by_hand() -> None:
    size = size_engine(LLAMA_8B, GPU_KINDS["h100"], streams=200, context=8192)
    assert size.weights == 8 * GIB  # fp8
    assert size.kv_per_token == 128 * 1024
    assert size.kv_per_context == GIB
    assert size.tensor_parallel == 1
    assert size.cache == int(79 * GIB * 0.9) - RESERVE - 8 * GIB
    assert size.streams == int(size.cache / (GIB / 2)) == 120
    assert (size.replicas, size.gpus) == (2, 2)


def test_a_large_model_needs_several_gpus_and_a_divisor_of_its_heads() -> None:
    size = size_engine(LLAMA_70B, GPU_KINDS["a100"], streams=10, context=8192)
    assert size.weights == 141 * GIB
    assert size.tensor_parallel == 4  # 3 would hold it, but do not divide 64 heads
    assert size.gpus == 4
    assert size_engine(LLAMA_70B, GPU_KINDS["h200"], streams=1, context=8192).tensor_parallel == 1


def test_an_fp8_cache_holds_twice_the_streams() -> None:
    plain = size_engine(LLAMA_8B, GPU_KINDS["l40s"], streams=1, context=4096)
    small = size_engine(LLAMA_8B, GPU_KINDS["l40s"], streams=1, context=4096, kv_fp8=True)
    assert small.streams >= 2 * plain.streams
    assert small.kv_per_token * 2 == plain.kv_per_token


def test_what_is_not_known_is_said() -> None:
    with pytest.raises(ModelRefused, match="--weights"):
        size_engine(ModelConfig("X", None, None, None, 1024, 64, None), GPU_KINDS["l4"], streams=1, context=100)
    with pytest.raises(ModelRefused, match="plain attention"):
        size_engine(ModelConfig("X", None, None, None, None, 64, GIB), GPU_KINDS["l4"], streams=1, context=100)
    with pytest.raises(ModelRefused, match="64 of these GPUs"):
        size_engine(LLAMA_8B, GPU_KINDS["l4"], streams=1, context=100, weight_bytes=9000 * GIB)


def test_the_command_prints_the_plan(tmp_path: Path) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "hidden_size": 4096,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    out = StringIO()
    call_command(
        "plan", "--model", str(tmp_path), "--gpu", "h100", "--streams", "200", "--context", "8192", "--weights", "16",
        stdout=out,
    )  # fmt: skip
    text = out.getvalue()
    assert "weights        8.00 GiB" in text
    assert "128.0 KiB per token, 1.000 GiB per context of 8192 tokens" in text
    assert "CHAT_TENSOR_PARALLEL=1 CHAT_DATA_PARALLEL=2 MAX_CONCURRENT_CONNECTIONS=200" in text
    with pytest.raises(CommandError, match="no such folder"):
        call_command("plan", "--model", "/nowhere", "--gpu", "h100", "--streams", "1")
    with pytest.raises(CommandError, match="at least 1"):
        call_command("plan", "--model", str(tmp_path), "--gpu", "h100", "--streams", "0")

"""What an engine is started with on which machine, and what is refused before it starts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference.engines.arguments import plan
from inference.engines.base import EngineRole
from inference.engines.device import GIB, Device, probe
from inference.engines.model_config import ModelConfig
from inference.engines.spec import EngineSpec, ModelRefused, specs
from inference.engines.tokenizer import CHATML_TEMPLATE, end_token_ids, load_tokenizer
from inference.engines.topology import engine_cores
from tests.fakes.engine import tiny_tokenizer
from yapserver.env import Environment

AVX2 = Device("cpu", 16 * GIB, 14 * GIB, cores=(0, 1), flags=frozenset({"avx2"}))
AVX512 = replace(AVX2, flags=frozenset({"avx2", "avx512f"}))
BF16 = replace(AVX512, flags=AVX512.flags | {"avx512_bf16"})
HOPPER = Device("cuda", 140 * GIB, 139 * GIB, (9, 0), cores=tuple(range(16)))
AMPERE = replace(HOPPER, capability=(8, 0))
TURING = replace(HOPPER, capability=(7, 5))

CHAT = EngineSpec(EngineRole.CHAT, "m", 5160, alone=False, gpu_fraction=0.7)
TOOL = EngineSpec(EngineRole.TOOL, "m", 3000, 256, alone=False, gpu_fraction=0.2)
SMALL = ModelConfig("LlamaForCausalLM", 8192, None, None, 2 * 30 * 3 * 64, 64, GIB // 4)
AWQ = replace(SMALL, quantization="awq", bits=4, weight_type="int")
GPTQ = replace(AWQ, quantization="gptq")
FP8 = replace(SMALL, quantization="fp8", bits=8, weight_type="float")
W4A16 = replace(AWQ, quantization="compressed-tensors")
W8A8 = replace(W4A16, bits=8, activation_bits=8)
CT_FP8 = replace(W8A8, weight_type="float")


def _environment(**settings: Any) -> Environment:
    return Environment.model_validate(settings)


# -- what the machine decides --------------------------------------------------------------------------------------


def test_every_engine_caches_prefixes_orders_by_priority_and_keeps_statistics() -> None:
    for device, tokens in ((AVX2, 128 + CHAT.max_num_seqs), (HOPPER, 512)):
        arguments = plan(CHAT, device, SMALL).arguments
        assert arguments["enable_prefix_caching"] is True
        assert arguments["scheduling_policy"] == "priority"
        assert arguments["disable_log_stats"] is False
        assert arguments["structured_outputs_config"]["backend"] == "xgrammar"
        assert (arguments["max_model_len"], arguments["max_num_batched_tokens"]) == (5160, tokens)


@pytest.mark.parametrize(
    ("device", "config", "dtype"),
    [
        (AVX2, SMALL, "float32"),
        (AVX512, SMALL, "float32"),
        (BF16, SMALL, "bfloat16"),
        (AVX512, AWQ, "bfloat16"),
        (HOPPER, SMALL, "auto"),
        (AMPERE, SMALL, "auto"),
        (TURING, SMALL, "float16"),
    ],
)
def test_dtype(device: Device, config: ModelConfig, dtype: str) -> None:
    assert plan(CHAT, device, config).arguments["dtype"] == dtype


def test_a_cpu_is_eager_with_small_blocks_and_a_cache_of_a_known_size() -> None:
    launch = plan(CHAT, AVX2, SMALL)
    assert launch.arguments["enforce_eager"] is True
    assert launch.arguments["block_size"] == 32
    assert launch.arguments["kv_cache_memory_bytes"] == 5 * 5184 * SMALL.kv_values * 4  # type: ignore[operator]
    assert launch.process_environ["OMP_PLACES"] == "{0}"
    assert launch.process_environ["OMP_NUM_THREADS"] == "1"
    assert launch.arguments["distributed_executor_backend"].endswith("UniProcExecutor")
    assert "gpu_memory_utilization" not in launch.arguments


def test_a_cpu_needs_no_compiler_unless_the_operator_asks_for_compiled_models() -> None:
    assert plan(CHAT, AVX2, SMALL).process_environ["TORCH_COMPILE_DISABLE"] == "1"
    compiled = replace(CHAT, engine_args={"enforce_eager": False})
    assert "TORCH_COMPILE_DISABLE" not in plan(compiled, AVX2, SMALL).process_environ


def test_the_cache_shrinks_with_the_memory_but_holds_one_full_context() -> None:
    little = plan(CHAT, replace(AVX2, free_memory=5 * GIB), SMALL).arguments["kv_cache_memory_bytes"]
    assert 5184 * SMALL.kv_values * 4 <= little < 5 * 5184 * SMALL.kv_values * 4  # type: ignore[operator]


def test_a_gpu_compiles_and_takes_its_share() -> None:
    launch = plan(CHAT, HOPPER, SMALL)
    assert launch.arguments["gpu_memory_utilization"] == 0.7
    assert not {"enforce_eager", "block_size", "kv_cache_memory_bytes"} & set(launch.arguments)
    assert not launch.process_environ
    assert "distributed_executor_backend" not in launch.arguments
    assert launch.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"


@pytest.mark.parametrize(
    ("cores", "chat", "tool", "alone"),
    [
        ((3,), (3,), (3,), (3,)),
        ((0, 1), (0,), (1,), (0,)),
        ((0, 1, 2, 3), (0, 1), (2,), (0, 1, 2)),
        (tuple(range(16)), tuple(range(10)), (10, 11, 12, 13, 14), tuple(range(15))),
    ],
)
def test_threads(cores: tuple[int, ...], chat: tuple[int, ...], tool: tuple[int, ...], alone: tuple[int, ...]) -> None:
    device = replace(AVX2, cores=cores)
    assert engine_cores(CHAT, device) == chat
    assert engine_cores(TOOL, device) == tool
    assert engine_cores(replace(TOOL, alone=True), device) == alone


def test_on_a_cpu_a_step_is_short_unless_the_operator_wants_it_long() -> None:
    wish = replace(CHAT, max_num_batched_tokens=1024)
    for spec, device, tokens in (
        (CHAT, AVX2, 128 + CHAT.max_num_seqs),
        (replace(wish, batched_tokens_chosen=True), AVX2, 1024),
        (replace(CHAT, max_num_batched_tokens=64), AVX2, 64 + CHAT.max_num_seqs),
        (wish, HOPPER, 1024),
    ):
        assert plan(spec, device, SMALL).arguments["max_num_batched_tokens"] == tokens
    arguments = plan(CHAT, AVX2, SMALL).arguments
    assert 0 < arguments["long_prefill_token_threshold"] < arguments["max_num_batched_tokens"]
    chat, tool = specs(_environment(MAX_NUM_BATCHED_TOKENS_CHAT=256))
    assert (chat.batched_tokens_chosen, tool.batched_tokens_chosen) == (True, False)


def test_more_sequences_than_batched_tokens_are_not_asked_of_vllm() -> None:
    assert plan(replace(CHAT, max_num_seqs=600), HOPPER, SMALL).arguments["max_num_batched_tokens"] == 600


# -- quantization --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "device", "config", "told"),
    [
        ("auto", AVX2, SMALL, None),
        ("auto", AMPERE, SMALL, None),
        ("auto", HOPPER, SMALL, "fp8_per_tensor"),
        ("fp8", HOPPER, SMALL, "fp8_per_tensor"),
        ("none", HOPPER, SMALL, None),
        ("auto", HOPPER, AWQ, None),
        ("awq", HOPPER, AWQ, None),
        ("awq", HOPPER, W4A16, None),
        ("gptq_marlin", HOPPER, GPTQ, None),
        ("auto", HOPPER, replace(GPTQ, bits=8), None),
        ("auto", AVX512, GPTQ, None),
        ("auto", AVX2, W8A8, None),
        ("auto", HOPPER, CT_FP8, None),
        ("awq", AVX512, AWQ, None),
        ("auto", HOPPER, FP8, None),
    ],
)
def test_quantization(asked: str, device: Device, config: ModelConfig, told: str | None) -> None:
    launch = plan(replace(CHAT, quantization=asked), device, config)
    assert launch.arguments.get("quantization") == told
    assert launch.facts["quantization"] == (told or config.quantization)


@pytest.mark.parametrize(("asked", "told"), [("auto", "auto"), ("fp8", "fp8"), ("int8", "int8_per_token_head")])
def test_kv_dtype_on_a_gpu_that_has_it(asked: str, told: str) -> None:
    assert plan(replace(CHAT, kv_dtype=asked), HOPPER, SMALL).arguments["kv_cache_dtype"] == told


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "device", "config", "reason"),
    [
        ({"quantization": "fp8"}, AVX512, SMALL, "fp8 needs a GPU of capability 8.9"),
        ({"quantization": "fp8"}, AMPERE, SMALL, "fp8 needs a GPU of capability 8.9"),
        ({}, AMPERE, FP8, "fp8 weights need a GPU"),
        ({"kv_dtype": "fp8"}, AMPERE, SMALL, "KV_DTYPE=fp8"),
        ({"kv_dtype": "fp8"}, AVX2, SMALL, "KV_DTYPE=fp8"),
        ({"kv_dtype": "int8"}, AVX512, SMALL, "KV_DTYPE=int8 needs a GPU"),
        ({}, AVX2, AWQ, "4-bit weights need AVX-512"),
        ({}, AVX2, GPTQ, "4-bit weights need AVX-512"),
        ({}, AVX512, CT_FP8, "compressed-tensors, 8-bit float with 8-bit activations need a GPU"),
        ({}, AVX512, replace(CT_FP8, activation_bits=None), "compressed-tensors, 8-bit float need a GPU"),
        ({}, AVX512, replace(GPTQ, bits=8), "stored as gptq, 8-bit int have no CPU kernel"),
        ({}, AVX512, replace(W4A16, bits=8), "compressed-tensors, 8-bit int have no CPU kernel"),
        ({"quantization": "awq"}, HOPPER, W8A8, "awq needs 4-bit integer weights; these are stored as"),
        ({"quantization": "awq"}, HOPPER, CT_FP8, "awq needs 4-bit integer weights"),
        ({"quantization": "awq"}, HOPPER, replace(W4A16, bits=8), "awq needs 4-bit integer weights"),
        ({"quantization": "awq"}, HOPPER, GPTQ, "stored as gptq, not as awq"),
        ({"quantization": "awq"}, HOPPER, SMALL, "not stored as awq"),
        ({"quantization": "gptq"}, HOPPER, AWQ, "stored as awq, not as gptq"),
        ({"quantization": "none"}, HOPPER, AWQ, "stored as awq, not as none"),
        ({"max_model_len": 9000}, HOPPER, SMALL, "CHAT_MAX_LEN=9000 does not fit.*8192 positions"),
        ({}, replace(AVX2, free_memory=2 * GIB), SMALL, r"context of 5160 tokens need .* GiB"),
        ({}, replace(HOPPER, memory=GIB // 4, free_memory=GIB // 4), SMALL, r"context of 5160 tokens need .* GiB"),
        ({}, replace(HOPPER, free_memory=50 * GIB), SMALL, "50.0 GiB are free"),
        ({}, AVX2, replace(SMALL, head_size=16), "heads of width 16 have no CPU kernel"),
    ],
)
def test_refused(change: dict[str, Any], device: Device, config: ModelConfig, reason: str) -> None:
    with pytest.raises(ModelRefused, match=reason) as refusal:
        plan(replace(CHAT, **change), device, config)
    assert "\n" not in str(refusal.value)


# -- from the environment ------------------------------------------------------------------------------------------


def test_the_demo_runs_both_engines_on_the_demo_model(tmp_path: Path) -> None:
    chat, tool = specs(_environment(MODELS_DIR=tmp_path))
    assert (chat.role, tool.role) == (EngineRole.CHAT, EngineRole.TOOL)
    assert chat.model == tool.model == str(tmp_path / "SmolLM2-135M-Instruct")
    assert (chat.max_model_len, tool.max_model_len) == (5160, 3000)
    assert (chat.max_num_batched_tokens, tool.max_num_batched_tokens) == (512, 256)
    assert (chat.gpu_fraction, tool.gpu_fraction) == (0.70, 0.20)
    assert chat.max_num_seqs == 10
    assert not chat.alone


def test_an_engine_alone_has_the_gpu() -> None:
    (tool,) = specs(_environment(DEPLOY_MODELS="tool"))
    assert (tool.role, tool.gpu_fraction, tool.alone) == (EngineRole.TOOL, 0.90, True)
    assert specs(_environment(DEPLOY_MODELS="chat", CHAT_GPU_FRAC=0.5))[0].gpu_fraction == 0.5


def test_an_awq_model_wins_and_an_engines_own_quantization_too() -> None:
    settings = _environment(
        CHAT_MODEL="a/b", AWQ_CHAT_MODEL="a/b-awq", TOOL_MODEL="a/c", QUANTIZATION="fp8", CHAT_QUANTIZATION="awq"
    )
    chat, tool = specs(settings)
    assert (chat.model, chat.quantization) == ("a/b-awq", "awq")
    assert (tool.model, tool.quantization) == ("a/c", "fp8")


# -- tokenizers and this machine -----------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_tokenizer_without_a_template_gets_chatml_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    for file in tmp_path.glob("*.jinja"):
        file.unlink()
    assert load_tokenizer(str(tmp_path)).chat_template == CHATML_TEMPLATE
    assert "no chat template" in caplog.text


@pytest.mark.thorough
def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(ModelRefused, match="tokenizer does not load"):
        load_tokenizer(str(tmp_path))


@pytest.mark.thorough
def test_end_tokens_are_the_tokenizers_the_generation_configs_and_the_templates(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    tokenizer.eos_token = "<|endoftext|>"
    end, start, turn = (
        tokenizer.convert_tokens_to_ids(name) for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    )
    assert end_token_ids(tokenizer, str(tmp_path)) == {end, turn}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [start]}))
    assert end_token_ids(tokenizer, str(tmp_path)) == {end, turn, start}


def test_this_machine_has_cores_and_memory() -> None:
    device = probe()
    assert device.kind in ("cpu", "cuda")
    assert device.cores
    assert 0 < device.free_memory <= device.memory

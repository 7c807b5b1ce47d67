"""Launch arguments of one vLLM engine, from device, model and settings. Refusals come before any slow step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.engines.base import EngineRole
from inference.engines.device import GIB, Device
from inference.engines.model_config import ModelConfig
from inference.engines.spec import EngineSpec, ModelRefused

CPU_BLOCK = 32
# No stream gets a token until the step ends, so the tokens of a step bound the gap between tokens. Measured with the
# demo model on two cores, four streams beside four long prompts (python -m tests.benchmarks.batching): a step of 512
# tokens takes 436 ms, of 128 tokens 130 ms; the first text of the long prompts comes after 3.0 and 3.4 s.
CPU_PROMPT_TOKENS = 128  # plus one token for each sequence
# vLLM's CPU attention loads models of other head sizes and crashes at the first request.
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
# Memory of the two processes of one CPU engine without weights and cache (measured: 1.2 GB).
CPU_OVERHEAD = 5 * GIB // 4
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FAMILIES = {
    "awq": {"awq", "awq_marlin", "auto_awq", "compressed-tensors"},
    "gptq": {"gptq", "gptq_marlin", "auto_gptq"},
    "gptq_marlin": {"gptq", "gptq_marlin", "auto_gptq"},
    "fp8": {"fp8", "fbgemm_fp8", "compressed-tensors", "modelopt"},
}


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """Settings of one engine start.

    `arguments` are fields of `AsyncEngineArgs`. `environ` is set before vLLM is imported. `process_environ` is set
    for the engine's own process only. `facts` describe the choice to operators.
    """

    arguments: Mapping[str, Any]
    environ: Mapping[str, str]
    process_environ: Mapping[str, str]
    facts: Mapping[str, Any]


def plan(spec: EngineSpec, device: Device, config: ModelConfig) -> LaunchPlan:
    """Choose the launch arguments of an engine on this device.

    Raises:
        ModelRefused: the model or a setting cannot run here.
    """
    _check_length(spec, config)
    quantization = load_quantization(f"{spec.role} model {spec.model}", spec.quantization, device, config)
    kv_dtype = _kv_dtype(spec, device)
    dtype = _dtype(device, config)
    arguments: dict[str, Any] = {
        "model": spec.model,
        "dtype": dtype,
        "max_model_len": spec.max_model_len,
        "max_num_seqs": spec.max_num_seqs,
        "max_num_batched_tokens": _batched_tokens(spec, device),
        "kv_cache_dtype": kv_dtype,
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        # With free white space a small model may write line breaks until max_tokens.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "disable_log_stats": False,
    }
    if quantization is not None:
        arguments["quantization"] = quantization
    environ = {
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CONFIGURE_LOGGING": "1",
        "VLLM_LOGGING_CONFIG_PATH": str(Path(__file__).with_name("vllm_logging.json")),  # warnings, one line each
    }
    process_environ: dict[str, str] = {}
    facts: dict[str, Any] = {
        "quantization": quantization or config.quantization,
        "dtype": dtype,
        "kv_dtype": kv_dtype,
        "device": device.kind,
    }
    if device.kind == "cpu":
        _check_head_size(spec, config)
        threads = bound_cores(spec, device)
        arguments |= {
            "block_size": CPU_BLOCK,
            # A long prompt uses at most half of a step, so that later requests progress too.
            "long_prefill_token_threshold": min(_batched_tokens(spec, device), spec.max_model_len) // 2,
            # Compilation takes two minutes on a small machine; without it the model is ready in half a minute.
            "enforce_eager": True,
            "kv_cache_memory_bytes": _cpu_cache(spec, device, config, dtype, kv_dtype),
            # vLLM's CPU platform replaces "uni" by "mp", whose scheduler polls its worker in a busy loop and occupies
            # one more core. A class path is not replaced.
            "distributed_executor_backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor",
            # Async scheduling delays text by one step and wastes one token per aborted request. It gains nothing here,
            # because the model runs in the scheduler's process.
            "async_scheduling": False,
        }
        process_environ = {
            "OMP_NUM_THREADS": str(len(threads)),
            "OMP_PROC_BIND": "true",
            "OMP_PLACES": ",".join(f"{{{core}}}" for core in threads),
        }
        facts |= {"threads": len(threads), "kv_cache_bytes": arguments["kv_cache_memory_bytes"]}
    else:
        arguments["gpu_memory_utilization"] = spec.gpu_fraction
        _check_gpu_memory(spec, device, config, kv_dtype)
    return LaunchPlan(arguments, environ, process_environ, facts)


def _batched_tokens(spec: EngineSpec, device: Device) -> int:
    """Return the tokens of one step: at least one for each sequence."""
    if device.kind == "cpu" and not spec.batched_tokens_wished:
        return min(spec.max_num_batched_tokens, CPU_PROMPT_TOKENS) + spec.max_num_seqs
    return max(spec.max_num_batched_tokens, spec.max_num_seqs)


def bound_cores(spec: EngineSpec, device: Device) -> tuple[int, ...]:
    """Choose the CPU cores of one engine's threads.

    A core that the web server needs stalls every thread of a step. With three or more cores, the last one is left to
    the server; with two, each engine gets one core and the server shares both.

    Returns:
        CPU ids.
    """
    cores = device.cores
    if len(cores) <= 2:
        return (cores[-1],) if spec.role is EngineRole.TOOL and not spec.alone else (cores[0],)
    free = cores[:-1]
    if spec.alone:
        return free
    chat = max(1, len(free) * 2 // 3)
    return free[:chat] if spec.role is EngineRole.CHAT else free[chat:]


def _check_length(spec: EngineSpec, config: ModelConfig) -> None:
    if config.max_positions is not None and spec.max_model_len > config.max_positions:
        raise ModelRefused(
            f"{spec.role} model {spec.model}: {spec.role.upper()}_MAX_LEN={spec.max_model_len} does not fit, "
            f"this model has {config.max_positions} positions"
        )


def _check_head_size(spec: EngineSpec, config: ModelConfig) -> None:
    if config.head_size is not None and config.kv_values is not None and config.head_size not in CPU_HEAD_SIZES:
        raise ModelRefused(
            f"{spec.role} model {spec.model}: attention heads of width {config.head_size} have no CPU kernel; "
            f"supported widths are {', '.join(map(str, CPU_HEAD_SIZES))}"
        )


def load_quantization(name: str, asked: str, device: Device, config: ModelConfig) -> str | None:
    """Decide how vLLM quantizes the weights of one model while it loads them.

    Args:
        name: role and model, for messages.
        asked: ``auto`` or what ``QUANTIZATION`` allows.
        device: the machine; only its kind, its capability and its instruction sets are read.
        config: the model's own facts.

    Returns:
        vLLM's name of an online quantization; None where the weights stay as they are stored.

    Raises:
        ModelRefused: the weights are stored otherwise than asked, or have no kernel on this device.
    """
    own = config.quantization
    if own is not None:
        if asked == "none" or (asked in _FAMILIES and own not in _FAMILIES[asked]):
            raise ModelRefused(f"{name}: its weights are stored as {own}, not as {asked}; set the quantization to auto")
        if asked == "awq" and not config.is_awq:
            raise ModelRefused(f"{name}: awq needs 4-bit integer weights; these are stored as {_stored(config)}")
        _check_kernel(name, device, config)
        return None
    if asked in ("awq", "gptq", "gptq_marlin"):
        raise ModelRefused(f"{name}: its weights are not stored as {asked}; use such a model, or set it to auto")
    if asked == "fp8" and not device.has_fp8:
        raise ModelRefused(f"{name}: fp8 needs a GPU of capability 8.9 or more; this is a {device}")
    return "fp8_per_tensor" if device.has_fp8 and asked in ("auto", "fp8") else None


def _check_kernel(name: str, device: Device, config: ModelConfig) -> None:
    """Refuse stored weights that vLLM loads and then cannot multiply.

    On a CPU vLLM 0.32 has kernels for 4-bit integers (`cpu_gemm_wna16`, built for AVX-512 alone) and for 8-bit integers
    with 8-bit activations. With fp8 weights an engine gets ready and never writes a token.
    """
    own, weights_alone = str(config.quantization), config.activation_bits is None
    if "fp8" in own and not device.has_fp8:
        raise ModelRefused(f"{name}: fp8 weights need a GPU of capability 8.9 or more; this is a {device}")
    if device.kind != "cpu":
        return
    if config.weight_type == "float":
        raise ModelRefused(f"{name}: weights stored as {_stored(config)} need a GPU; this is a {device}")
    if config.bits == 4 and not device.has_avx512:
        raise ModelRefused(f"{name}: 4-bit weights need AVX-512 on a CPU, and this one has none")
    if config.bits not in (4, None) and weights_alone:
        raise ModelRefused(f"{name}: weights stored as {_stored(config)} have no CPU kernel; 4-bit weights have one")


def _stored(config: ModelConfig) -> str:
    inputs = "" if config.activation_bits is None else f" with {config.activation_bits}-bit activations"
    return f"{config.quantization}, {config.bits}-bit {config.weight_type}{inputs}"


def _kv_dtype(spec: EngineSpec, device: Device) -> str:
    if spec.kv_dtype == "fp8" and not device.has_fp8:
        raise ModelRefused(f"KV_DTYPE=fp8 needs a GPU of capability 8.9 or more; this is a {device}")
    if spec.kv_dtype == "int8":
        if device.kind == "cpu":
            raise ModelRefused("KV_DTYPE=int8 needs a GPU: its kernels are Triton's")
        return "int8_per_token_head"
    return spec.kv_dtype


def _dtype(device: Device, config: ModelConfig) -> str:
    """Choose the width of the weights.

    Half width if the machine multiplies it natively (on a CPU 1.8 times the tokens of float32), else float32 (2.8
    times the tokens of emulated bfloat16). CPU kernels for 4-bit weights support bfloat16 only.
    """
    if device.kind == "cuda":
        return "auto" if device.capability >= (8, 0) else "float16"
    return "bfloat16" if device.has_bf16 or config.bits == 4 else "float32"


def _cpu_cache(spec: EngineSpec, device: Device, config: ModelConfig, dtype: str, kv_dtype: str) -> int:
    """Compute the size of the KV cache on a CPU, which vLLM allocates at start.

    Half of the sequences at full length, because few are that long at once; or the rest of this engine's memory
    share.

    Returns:
        Bytes.
    """
    share = int(device.free_memory * (0.9 if spec.alone else 0.45))
    weights = (config.weight_bytes or 0) * (2 if dtype == "float32" and config.quantization is None else 1)
    left = share - weights - CPU_OVERHEAD
    one = _sequence_bytes(spec, config, dtype, kv_dtype)
    if left < (one or 1):
        needs = weights + CPU_OVERHEAD + (one or 0)
        raise ModelRefused(
            f"{spec.role} model {spec.model}: weights and a context of {spec.max_model_len} tokens need "
            f"{needs / GIB:.1f} GiB; this engine's share of the free memory is {max(share, 0) / GIB:.1f} GiB"
        )
    return min(left, (one or GIB) * max(2, spec.max_num_seqs // 2))


def _check_gpu_memory(spec: EngineSpec, device: Device, config: ModelConfig, kv_dtype: str) -> None:
    """Refuse a model that exceeds its memory share by a lower bound; vLLM computes the exact figure after loading."""
    share = int(device.memory * spec.gpu_fraction)
    if share > device.free_memory:
        raise ModelRefused(
            f"{spec.role} model {spec.model}: its share {spec.gpu_fraction:g} of the GPU is {share / GIB:.1f} GiB, "
            f"and {device.free_memory / GIB:.1f} GiB are free"
        )
    weights = config.weight_bytes or 0
    if device.has_fp8 and config.quantization is None:
        weights //= 2
    needs = weights + (_sequence_bytes(spec, config, "float16", kv_dtype) or 0)
    if needs > share:
        raise ModelRefused(
            f"{spec.role} model {spec.model}: weights and a context of {spec.max_model_len} tokens need "
            f"{needs / GIB:.1f} GiB of the GPU; its share is {share / GIB:.1f} GiB"
        )


def _sequence_bytes(spec: EngineSpec, config: ModelConfig, dtype: str, kv_dtype: str) -> int | None:
    if config.kv_values is None:
        return None
    tokens = -(-spec.max_model_len // CPU_BLOCK) * CPU_BLOCK
    return tokens * config.kv_values * (_BYTES[dtype] if kv_dtype == "auto" else 1)

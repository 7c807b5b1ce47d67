"""Plans the launch of one vLLM engine: arguments and environment from the machine, the model and the operator's wishes.

Plain Python without vLLM: settings that cannot work are refused before minutes are spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.engines.device import Device
from inference.engines.memory_check import BLOCK_TOKENS, check_gpu_memory, cpu_cache_bytes
from inference.engines.model_config import ModelConfig
from inference.engines.spec import EngineSpec, ModelRefused
from inference.engines.topology import check_topology, cpu_process_environment, engine_cores, visible_gpus

# No stream gets a token until a step ends, so a step's token budget bounds the time between two tokens. Measured with
# the demo model on two cores, four streams beside four long prompts (python -m tests.benchmarks.batching): 512 tokens
# 436 ms, 128 tokens 130 ms; first text of the long prompts after 3.0 and 3.4 s.
CPU_PROMPT_TOKENS = 128  # beside one token of each sequence
# vLLM's CPU attention accepts any other width and fails at the first request.
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
_FAMILIES = {
    "awq": {"awq", "awq_marlin", "auto_awq", "compressed-tensors"},
    "gptq": {"gptq", "gptq_marlin", "auto_gptq"},
    "gptq_marlin": {"gptq", "gptq_marlin", "auto_gptq"},
    "fp8": {"fp8", "fbgemm_fp8", "compressed-tensors", "modelopt"},
}


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """The launch of one engine.

    Attributes:
        arguments: fields of ``AsyncEngineArgs``.
        environ: environment of this process, to be set before vLLM is imported.
        process_environ: environment of the engine's processes alone.
        facts: what was chosen, for status and dashboard.
    """

    arguments: Mapping[str, Any]
    environ: Mapping[str, str]
    process_environ: Mapping[str, str]
    facts: Mapping[str, Any]


def plan(spec: EngineSpec, device: Device, config: ModelConfig) -> LaunchPlan:
    """Plan the launch of one engine.

    Args:
        spec: the operator's wishes.
        device: the machine.
        config: the model's facts.

    Raises:
        ModelRefused: the engine cannot run here; the message names the setting to change.
    """
    _check_length(spec, config)
    check_topology(spec, device, config)
    process_environ = visible_gpus(spec, device)
    if spec.gpus is not None and device.gpus and spec.executor != "ray":
        device = device.with_gpus(spec.gpus)
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
        # With free white space a small model may write line breaks until its tokens are used up.
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
    if spec.executor == "ray" and spec.ray_address is not None:
        environ["RAY_ADDRESS"] = spec.ray_address
    arguments |= _parallel_arguments(spec)
    facts: dict[str, Any] = {
        "quantization": quantization or config.quantization,
        "dtype": dtype,
        "kv_dtype": kv_dtype,
        "device": device.kind,
        **_parallel_facts(spec),
    }
    if device.kind == "cpu":
        _check_head_size(spec, config)
        threads = engine_cores(spec, device)
        arguments |= {
            # The default of 128 would leave a shorter prompt out of the prefix cache.
            "block_size": BLOCK_TOKENS,
            # A long prompt leaves room in each step for the prompts that came after it.
            "long_prefill_token_threshold": min(_batched_tokens(spec, device), spec.max_model_len) // 2,
            # Compiling takes two minutes on a small machine; without it the model is ready in half a minute.
            "enforce_eager": True,
            "kv_cache_memory_bytes": cpu_cache_bytes(spec, device, config, dtype, kv_dtype),
            # Async scheduling adds one step of latency and one wasted token for each aborted request; a CPU has nothing
            # to overlap with it.
            "async_scheduling": False,
        }
        if spec.world_size == 1:
            # By its name "uni" vLLM replaces it with "mp" on a CPU (vllm/platforms/cpu.py, check_and_update_config).
            # The scheduler of "mp" waits for its worker in a busy loop, which takes a core from the model and the
            # server: text then arrived when the reply was over.
            arguments["distributed_executor_backend"] = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
        process_environ |= cpu_process_environment(spec, threads)
        if spec.engine_args.get("enforce_eager") is not False:
            # The kernel that ranks logprobs is under torch.compile even then. Its first use would start a C++ compiler,
            # and end the engine on a host that has no compiler or no headers of Python.
            process_environ |= {"TORCH_COMPILE_DISABLE": "1"}
        facts |= {"threads": len(threads), "kv_cache_bytes": arguments["kv_cache_memory_bytes"]}
    else:
        arguments["gpu_memory_utilization"] = spec.gpu_fraction
        check_gpu_memory(spec, device, config, kv_dtype)
    return LaunchPlan(arguments, environ, process_environ, facts)


def _parallel_arguments(spec: EngineSpec) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if spec.world_size > 1:
        arguments = {
            "tensor_parallel_size": spec.tensor_parallel,
            "pipeline_parallel_size": spec.pipeline_parallel,
            "distributed_executor_backend": spec.executor or "mp",
        }
    if spec.executor == "ray":
        arguments["distributed_executor_backend"] = "ray"
    return arguments


def _parallel_facts(spec: EngineSpec) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "tensor_parallel": spec.tensor_parallel,
        "pipeline_parallel": spec.pipeline_parallel,
        "data_parallel": spec.replicas,
    }
    facts = {name: size for name, size in facts.items() if size > 1}
    if spec.gpus is not None:
        facts["gpus"] = list(spec.gpus)
    if spec.executor is not None:
        facts["executor"] = spec.executor
    if spec.engine_args:
        facts["engine_args"] = sorted(spec.engine_args)
    return facts


def _batched_tokens(spec: EngineSpec, device: Device) -> int:
    """Return the token budget of a step: at least one token for each sequence."""
    if device.kind == "cpu" and not spec.batched_tokens_chosen:
        return min(spec.max_num_batched_tokens, CPU_PROMPT_TOKENS) + spec.max_num_seqs
    return max(spec.max_num_batched_tokens, spec.max_num_seqs)


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
    """Choose the number format of the weights.

    A 16-bit format where the machine multiplies it natively: on a CPU 1.8 times the tokens of float32. Otherwise
    float32: 2.8 times the tokens of emulated bfloat16. CPU kernels for 4-bit weights know bfloat16 only.
    """
    if device.kind == "cuda":
        return "auto" if device.capability >= (8, 0) else "float16"
    return "bfloat16" if device.has_bf16 or config.bits == 4 else "float32"

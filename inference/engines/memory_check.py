"""The memory of one engine: the size of a CPU engine's KV cache, and whether a GPU engine fits its share at all."""

from __future__ import annotations

from inference.engines.device import GIB, Device
from inference.engines.model_config import ModelConfig
from inference.engines.spec import EngineSpec, ModelRefused

BYTES_OF = {"float32": 4, "bfloat16": 2, "float16": 2}
BLOCK_TOKENS = 32
# Bytes that the processes of one CPU engine need beside weights and cache (measured: 1.2 GB).
CPU_OVERHEAD = 5 * GIB // 4


def cpu_cache_bytes(spec: EngineSpec, device: Device, config: ModelConfig, dtype: str, kv_dtype: str) -> int:
    """Return the bytes of KV cache of one CPU process; all of them are taken at the start.

    The cache holds half of the sequences at full length, because few are that long at once, or what the engine's share
    of the memory leaves.

    Raises:
        ModelRefused: weights and one context do not fit the share.
    """
    share = int(device.free_memory * (0.9 if spec.alone else 0.45) / spec.replicas)
    weights = (config.weight_bytes or 0) * (2 if dtype == "float32" and config.quantization is None else 1)
    left = share - weights - CPU_OVERHEAD * spec.world_size
    one = sequence_bytes(spec, config, dtype, kv_dtype)
    if left < (one or 1):
        needs = weights + CPU_OVERHEAD * spec.world_size + (one or 0)
        raise ModelRefused(
            f"{spec.role} model {spec.model}: weights and a context of {spec.max_model_len} tokens need "
            f"{needs / GIB:.1f} GiB; this engine's share of the free memory is {max(share, 0) / GIB:.1f} GiB"
        )
    return min(left, (one or GIB) * max(2, spec.max_num_seqs // 2)) // spec.world_size


def check_gpu_memory(spec: EngineSpec, device: Device, config: ModelConfig, kv_dtype: str) -> None:
    """Check that an engine can fit its GPUs by any count. The exact figure is vLLM's, after the weights are loaded.

    Raises:
        ModelRefused: the share is not free, or does not hold the weights and one context.
    """
    share = int(device.memory * spec.gpu_fraction)
    if share > device.free_memory:
        raise ModelRefused(
            f"{spec.role} model {spec.model}: its share {spec.gpu_fraction:g} of the GPU is {share / GIB:.1f} GiB, "
            f"and {device.free_memory / GIB:.1f} GiB are free"
        )
    weights = config.weight_bytes or 0
    if device.has_fp8 and config.quantization is None:
        weights //= 2
    needs = (weights + (sequence_bytes(spec, config, "float16", kv_dtype) or 0)) // spec.world_size
    if needs > share:
        raise ModelRefused(
            f"{spec.role} model {spec.model}: weights and a context of {spec.max_model_len} tokens need "
            f"{needs / GIB:.1f} GiB of the GPU; its share is {share / GIB:.1f} GiB"
        )


def sequence_bytes(spec: EngineSpec, config: ModelConfig, dtype: str, kv_dtype: str) -> int | None:
    """Return the bytes of KV cache of one context; None where the model's cache is not plain attention."""
    if config.kv_values is None:
        return None
    tokens = -(-spec.max_model_len // BLOCK_TOKENS) * BLOCK_TOKENS
    return tokens * config.kv_values * (BYTES_OF[dtype] if kv_dtype == "auto" else 1)

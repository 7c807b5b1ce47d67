"""The memory arithmetic of an engine on GPUs: weights, KV cache per context, streams per GPU. No measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inference.engines.device import GIB
from inference.engines.model_config import ModelConfig
from inference.engines.spec import ModelRefused

# Bytes of one GPU that neither weights nor cache use: CUDA context, compiled graphs, activations of one step. An
# assumption; vLLM measures the real value at its start.
RESERVE = 3 * GIB


@dataclass(frozen=True, slots=True)
class GpuKind:
    """One product. ``memory`` is bytes; ``has_fp8`` means native fp8 arithmetic."""

    memory: int
    has_fp8: bool


# Memory as nvidia-smi shows it, rounded down.
GPU_KINDS = {
    "b200": GpuKind(178 * GIB, True),
    "h200": GpuKind(139 * GIB, True),
    "h100": GpuKind(79 * GIB, True),
    "a100": GpuKind(79 * GIB, False),
    "a100-40": GpuKind(39 * GIB, False),
    "l40s": GpuKind(44 * GIB, True),
    "l4": GpuKind(22 * GIB, True),
    "a10": GpuKind(22 * GIB, False),
    "rtx4090": GpuKind(23 * GIB, True),
}


@dataclass(frozen=True, slots=True)
class Sizing:
    """A plan for one engine. Sizes are bytes.

    Attributes:
        weights: of the model, as it is loaded.
        kv_per_token: of the cache, for one token.
        kv_per_context: of the cache, for one full context.
        tensor_parallel: GPUs of one replica: the fewest that hold the weights and one context.
        cache: room for the KV cache on all GPUs of one replica.
        streams: sequences that one replica holds at the assumed length.
        replicas: how many replicas the wanted streams need.
    """

    weights: int
    kv_per_token: int
    kv_per_context: int
    tensor_parallel: int
    cache: int
    streams: int
    replicas: int

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.tensor_parallel * self.replicas


def size_engine(
    config: ModelConfig,
    gpu: GpuKind,
    *,
    streams: int,
    context: int,
    fill: float = 0.5,
    fraction: float = 0.9,
    weight_bytes: int | None = None,
    kv_fp8: bool = False,
) -> Sizing:
    """Compute how many GPUs an engine needs.

    Args:
        config: the model's facts.
        gpu: the kind of GPU.
        streams: sequences that are in the engine at the same time.
        context: the longest sequence, tokens.
        fill: average length of a sequence as a fraction of the context.
        fraction: the engine's share of each GPU.
        weight_bytes: bytes of the stored weights; None takes those of a local folder.
        kv_fp8: whether the cache is stored as fp8.

    Raises:
        ModelRefused: the model's weights or cache are not known, or no number of GPUs up to 64 is enough.
    """
    stored = weight_bytes or config.weight_bytes
    if stored is None:
        raise ModelRefused("the size of the weights is not known: name a folder, or give --weights GIB")
    if config.kv_values is None:
        raise ModelRefused("this model's cache is not plain attention: measure it with vLLM instead")
    weights = stored // 2 if gpu.has_fp8 and config.quantization is None else stored
    kv_per_token = config.kv_values * (1 if kv_fp8 else 2)
    kv_per_context = kv_per_token * context
    room = int(gpu.memory * fraction) - RESERVE
    for tensor_parallel in range(1, 65):
        if config.heads is not None and config.heads % tensor_parallel:
            continue
        cache = room * tensor_parallel - weights
        if cache >= kv_per_context:
            per_replica = max(1, int(cache / max(1, kv_per_context * fill)))
            replicas = max(1, math.ceil(streams / per_replica))
            return Sizing(weights, kv_per_token, kv_per_context, tensor_parallel, cache, per_replica, replicas)
    raise ModelRefused("64 of these GPUs do not hold the weights and one context")

"""``CHAT_ENGINE_ARGS`` and ``TOOL_ENGINE_ARGS``: further fields of vLLM's ``AsyncEngineArgs``, checked by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from inference.engines.spec import EngineSpec, ModelRefused

# Fields that a variable of Yap's sets: {role} is CHAT or TOOL.
_HAS_A_VARIABLE = {
    "model": "{role}_MODEL",
    "max_model_len": "{role}_MAX_LEN",
    "quantization": "{role}_QUANTIZATION",
    "kv_cache_dtype": "KV_DTYPE",
    "gpu_memory_utilization": "{role}_GPU_FRAC",
    "tensor_parallel_size": "{role}_TENSOR_PARALLEL",
    "pipeline_parallel_size": "{role}_PIPELINE_PARALLEL",
    "data_parallel_size": "{role}_DATA_PARALLEL",
    "distributed_executor_backend": "DISTRIBUTED_EXECUTOR",
    "max_num_batched_tokens": "MAX_NUM_BATCHED_TOKENS_{role}",
}
# Fields that must keep their value, and the reason.
_NEEDED = {
    "enable_prefix_caching": (True, "every turn continues a cached prefix"),
    "scheduling_policy": ("priority", "turns run before warm-ups"),
    "disable_log_stats": (False, "the metrics come from them"),
    "skip_tokenizer_init": (False, "replies are text"),
    "enable_prompt_embeds": (False, "prompts are token ids"),
    # vllm/sampling_params.py, SamplingParams._validate_spec_decode: no min_p and no logit_bias beside it.
    "speculative_config": (None, "vLLM takes no token biases with speculative decoding, and banned phrases need them"),
}
_NOT_TAKEN = {"tokenizer", "runner", "convert", "headless", "api_server_count"}


def checked_engine_args(spec: EngineSpec, known: Collection[str]) -> Mapping[str, Any]:
    """Return the operator's engine arguments after a check.

    Args:
        spec: the engine.
        known: the names of all ``AsyncEngineArgs`` fields of the installed vLLM.

    Raises:
        ModelRefused: a field does not exist, has a variable of its own, or would break what Yap relies on.
    """
    variable = f"{spec.role.upper()}_ENGINE_ARGS"
    for name, value in spec.engine_args.items():
        if name in _HAS_A_VARIABLE:
            raise ModelRefused(f"{variable}: set {_HAS_A_VARIABLE[name].format(role=spec.role.upper())}, not {name}")
        if name in _NEEDED and value != _NEEDED[name][0]:
            raise ModelRefused(f"{variable}: {name} must stay {_NEEDED[name][0]!r}: {_NEEDED[name][1]}")
        if name in _NOT_TAKEN:
            raise ModelRefused(f"{variable}: {name} cannot be changed")
        if name not in known:
            raise ModelRefused(f"{variable}: this vLLM has no engine argument {name!r}")
    return spec.engine_args

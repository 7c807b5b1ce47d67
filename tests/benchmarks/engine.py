"""The engine configuration of all systems: computed once by the server's code and passed to each system."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from inference.engines import model_config
from inference.engines.arguments import plan
from inference.engines.base import EngineRole
from inference.engines.device import probe
from inference.engines.sampling import Sampling
from inference.engines.spec import EngineSpec
from inference.engines.tokenizer import end_token_ids, load_tokenizer
from tests.benchmarks.models import Model

CONTEXT = 5160
# Sampling that a CPU computes quickly, so that the engine of the tiny model costs almost nothing.
LIGHT = Sampling(
    temperature=1.0, top_p=1.0, top_k=10, min_p=0.0, repeat_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0
)
# Arguments by which Yap tunes an engine. The others select the model and its size.
YAP_CHOOSES = {
    "async_scheduling",
    "block_size",
    "distributed_executor_backend",
    "long_prefill_token_threshold",
    "max_num_batched_tokens",
    "scheduling_policy",
    "structured_outputs_config",
}
CROWD_TOKENS = 20_000  # tokens of the long, new prompts


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine configuration.

    `arguments` are fields of `AsyncEngineArgs`. `environ` and `process_environ` are those of `LaunchPlan`. `sampling`
    holds `SamplingParams` by vLLM's names, with the reply length. `wish` is the same sampling as a Yap client sends
    it.
    """

    arguments: Mapping[str, Any]
    environ: Mapping[str, str]
    process_environ: Mapping[str, str]
    sampling: Mapping[str, Any]
    wish: Mapping[str, float]
    device: str

    def as_it_comes(self) -> Engine:
        """Return a configuration with the same model and context, and vLLM's defaults for everything else."""
        arguments = {name: value for name, value in self.arguments.items() if name not in YAP_CHOOSES}
        return replace(self, arguments=arguments, process_environ={})

    def flags(self) -> list[str]:
        """Return the arguments as command-line flags of `vllm serve`, without the model."""
        flags: list[str] = []
        for name, value in self.arguments.items():
            flag = "--" + name.replace("_", "-")
            if name == "model" or (name == "disable_log_stats" and not value):
                continue
            if isinstance(value, bool):
                flags.append(flag if value else flag.replace("--", "--no-", 1))
            else:
                flags += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
        return flags


def engine(
    model: Model,
    *,
    slots: int,
    reply_tokens: int,
    batched_tokens: int | None,
    engines: int,
    quantization: str,
    light: bool = False,
) -> Engine:
    """Configure the engine.

    Args:
        slots: requests at once.
        engines: number of engines that share the machine.
        batched_tokens: tokens per step; None: Yap's choice.
    """
    device, config = probe(), model_config.read(model.path)
    context = min(CONTEXT, config.max_positions or CONTEXT)
    spec = EngineSpec(
        role=EngineRole.CHAT,
        model=model.path,
        max_model_len=context,
        max_num_batched_tokens=batched_tokens or 512,
        batched_tokens_chosen=batched_tokens is not None,
        max_num_seqs=slots,
        quantization=quantization,
        gpu_fraction=round(0.9 / engines, 2),
    )
    launch = plan(spec, device, config)
    arguments = dict(launch.arguments)
    if device.kind == "cpu":
        width = 4 if launch.facts["dtype"] == "float32" else 2
        tokens = max(slots * 768, 2 * context, CROWD_TOKENS)
        arguments["kv_cache_memory_bytes"] = min(
            arguments["kv_cache_memory_bytes"], tokens * (config.kv_values or 1 << 16) * width
        )
    if model.dummy:
        arguments["load_format"] = "dummy"
    wish = LIGHT if light else Sampling()
    sampling = {
        "max_tokens": reply_tokens,
        "temperature": wish.temperature,
        "top_p": wish.top_p,
        "top_k": wish.top_k,
        "min_p": wish.min_p,
        "repetition_penalty": wish.repeat_penalty,
        "presence_penalty": wish.presence_penalty,
        "frequency_penalty": wish.frequency_penalty,
        "stop_token_ids": sorted(end_token_ids(load_tokenizer(model.path), model.path)),
    }
    return Engine(arguments, launch.environ, launch.process_environ, sampling, asdict(wish), str(device))

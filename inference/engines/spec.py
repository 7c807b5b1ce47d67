"""The operator's wishes for each engine, taken from the typed environment."""

# ruff: noqa: N802 (the names are the environment's)
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from inference.engines.base import EngineRole

DEMO_MODEL = "SmolLM2-135M-Instruct"
# Warm-ups and a request that is being aborted may run in the engine beside the turns of all connections.
SPARE_SEQUENCES = 2
# Shares of a GPU's memory: both engines on one GPU, and one engine with its GPUs for itself.
CHAT_SHARE, TOOL_SHARE, ALONE_SHARE = 0.70, 0.20, 0.90


class ModelRefused(RuntimeError):
    """A model or a setting that cannot run on this machine. The message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine to build: the operator's wishes for one replica of one role.

    Attributes:
        role: the engine's task.
        model: Hub id or folder.
        max_model_len: the context, tokens.
        max_num_batched_tokens: prompt tokens of one step.
        batched_tokens_chosen: whether the operator chose ``max_num_batched_tokens``.
        max_num_seqs: sequences that run at once.
        quantization: ``auto`` or what ``QUANTIZATION`` allows.
        kv_dtype: ``auto``, ``fp8`` or ``int8``.
        gpu_fraction: the engine's share of each of its GPUs' memory, 0 to 1.
        alone: whether no engine of another role shares the machine.
        chat_template: a file that replaces the model's chat template; None keeps the model's.
        tensor_parallel: GPUs (on a CPU: processes) that share each layer.
        pipeline_parallel: stages into which the layers are divided.
        replica: the index among the engines of this role.
        replicas: how many engines of this role there are.
        gpus: positions of the engine's GPUs among the visible ones; None for the first ones.
        executor: ``mp``, ``ray``, or None for vLLM's choice.
        ray_address: the Ray cluster; None for a local one.
        engine_args: further ``AsyncEngineArgs`` fields; they win over Yap's choice.
    """

    role: EngineRole
    model: str
    max_model_len: int
    max_num_batched_tokens: int = 512
    batched_tokens_chosen: bool = False
    max_num_seqs: int = 10
    quantization: str = "auto"
    kv_dtype: str = "auto"
    gpu_fraction: float = 0.9
    alone: bool = True
    chat_template: Path | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    replica: int = 0
    replicas: int = 1
    gpus: tuple[int, ...] | None = None
    executor: str | None = None
    ray_address: str | None = None
    engine_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The role; with several replicas the role and the replica's index."""
        return str(self.role) if self.replicas == 1 else f"{self.role}-{self.replica}"

    @property
    def world_size(self) -> int:
        """GPUs, or processes on a CPU, of this replica."""
        return self.tensor_parallel * self.pipeline_parallel


class EngineSettings(Protocol):
    """The part of the typed environment (yapserver/env.py) that engines are made from."""

    @property
    def DEPLOY_MODELS(self) -> str: ...
    @property
    def CHAT_MODEL(self) -> str | None: ...
    @property
    def TOOL_MODEL(self) -> str | None: ...
    @property
    def AWQ_CHAT_MODEL(self) -> str | None: ...
    @property
    def AWQ_TOOL_MODEL(self) -> str | None: ...
    @property
    def QUANTIZATION(self) -> str: ...
    @property
    def CHAT_QUANTIZATION(self) -> str: ...
    @property
    def TOOL_QUANTIZATION(self) -> str: ...
    @property
    def CHAT_CHAT_TEMPLATE(self) -> Path | None: ...
    @property
    def TOOL_CHAT_TEMPLATE(self) -> Path | None: ...
    @property
    def KV_DTYPE(self) -> str: ...
    @property
    def CHAT_GPU_FRAC(self) -> float | None: ...
    @property
    def TOOL_GPU_FRAC(self) -> float | None: ...
    @property
    def CHAT_MAX_LEN(self) -> int: ...
    @property
    def TOOL_MAX_LEN(self) -> int: ...
    @property
    def MAX_NUM_BATCHED_TOKENS_CHAT(self) -> int: ...
    @property
    def MAX_NUM_BATCHED_TOKENS_TOOL(self) -> int: ...
    @property
    def CHAT_TENSOR_PARALLEL(self) -> int: ...
    @property
    def TOOL_TENSOR_PARALLEL(self) -> int: ...
    @property
    def CHAT_PIPELINE_PARALLEL(self) -> int: ...
    @property
    def TOOL_PIPELINE_PARALLEL(self) -> int: ...
    @property
    def CHAT_DATA_PARALLEL(self) -> int: ...
    @property
    def TOOL_DATA_PARALLEL(self) -> int: ...
    @property
    def CHAT_GPUS(self) -> str | None: ...
    @property
    def TOOL_GPUS(self) -> str | None: ...
    @property
    def DISTRIBUTED_EXECUTOR(self) -> str: ...
    @property
    def RAY_ADDRESS(self) -> str | None: ...
    @property
    def CHAT_ENGINE_ARGS(self) -> str | None: ...
    @property
    def TOOL_ENGINE_ARGS(self) -> str | None: ...
    @property
    def model_fields_set(self) -> set[str]: ...
    @property
    def MAX_CONCURRENT_CONNECTIONS(self) -> int: ...
    @property
    def MODELS_DIR(self) -> Path: ...


def specs(settings: EngineSettings) -> list[EngineSpec]:
    """Return the engines that this server deploys, in the order in which they are built: one for each replica."""
    deployed = [role for role in EngineRole if settings.DEPLOY_MODELS in ("both", role.value)]
    return [spec for role in deployed for spec in specs_for(settings, role)]


def specs_for(settings: EngineSettings, role: EngineRole) -> list[EngineSpec]:
    """Return one spec for each replica of a role."""
    alone = settings.DEPLOY_MODELS != "both"
    shares_gpus = not alone and not gpus_are_apart(settings.CHAT_GPUS, settings.TOOL_GPUS)
    is_chat = role is EngineRole.CHAT
    fraction = settings.CHAT_GPU_FRAC if is_chat else settings.TOOL_GPU_FRAC
    shared_fraction = CHAT_SHARE if is_chat else TOOL_SHARE
    prequantized = settings.AWQ_CHAT_MODEL if is_chat else settings.AWQ_TOOL_MODEL
    model = prequantized or (settings.CHAT_MODEL if is_chat else settings.TOOL_MODEL)
    batched = "MAX_NUM_BATCHED_TOKENS_CHAT" if is_chat else "MAX_NUM_BATCHED_TOKENS_TOOL"
    replicas = settings.CHAT_DATA_PARALLEL if is_chat else settings.TOOL_DATA_PARALLEL
    executor = settings.DISTRIBUTED_EXECUTOR
    base = EngineSpec(
        role=role,
        model=model or str(settings.MODELS_DIR / DEMO_MODEL),
        max_model_len=settings.CHAT_MAX_LEN if is_chat else settings.TOOL_MAX_LEN,
        max_num_batched_tokens=getattr(settings, batched),
        batched_tokens_chosen=batched in settings.model_fields_set,
        max_num_seqs=settings.MAX_CONCURRENT_CONNECTIONS + SPARE_SEQUENCES,
        quantization=_first(
            settings.CHAT_QUANTIZATION if is_chat else settings.TOOL_QUANTIZATION, settings.QUANTIZATION
        ),
        kv_dtype=settings.KV_DTYPE,
        gpu_fraction=fraction or (shared_fraction if shares_gpus else ALONE_SHARE),
        alone=alone,
        chat_template=settings.CHAT_CHAT_TEMPLATE if is_chat else settings.TOOL_CHAT_TEMPLATE,
        tensor_parallel=settings.CHAT_TENSOR_PARALLEL if is_chat else settings.TOOL_TENSOR_PARALLEL,
        pipeline_parallel=settings.CHAT_PIPELINE_PARALLEL if is_chat else settings.TOOL_PIPELINE_PARALLEL,
        replicas=replicas,
        executor=None if executor == "auto" else executor,
        ray_address=settings.RAY_ADDRESS,
        engine_args=json.loads((settings.CHAT_ENGINE_ARGS if is_chat else settings.TOOL_ENGINE_ARGS) or "{}"),
    )
    gpus = parse_gpus(settings.CHAT_GPUS if is_chat else settings.TOOL_GPUS)
    return [replace(base, replica=index, gpus=_gpus_of(base, index, gpus)) for index in range(replicas)]


def parse_gpus(text: str | None) -> tuple[int, ...] | None:
    """Read a list of GPUs such as ``0,1,2`` or ``4-7``.

    Returns:
        The positions; None for no text.

    Raises:
        ValueError: the text is no such list, or names a GPU twice.
    """
    if not text:
        return None
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"{text!r}: GPUs are numbers such as 0,1 or 0-3")
        found += range(int(first), int(last if dash else first) + 1)
    if len(set(found)) != len(found) or not found:
        raise ValueError(f"{text!r} names a GPU twice, or none")
    return tuple(found)


def gpus_are_apart(chat: str | None, tool: str | None) -> bool:
    """Whether both engines have GPUs of their own."""
    one, other = parse_gpus(chat), parse_gpus(tool)
    return one is not None and other is not None and not set(one) & set(other)


def _gpus_of(spec: EngineSpec, replica: int, gpus: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return the GPUs of one replica: the next ``world_size`` of the role's. None: one GPU, not chosen here."""
    if gpus is None and spec.world_size == spec.replicas == 1:
        return None
    size = spec.world_size
    pool = gpus if gpus is not None else tuple(range(size * spec.replicas))
    return pool[replica * size : (replica + 1) * size]


def _first(own: str, both: str) -> str:
    return both if own == "auto" else own

"""What an operator asks of one engine, taken from the typed environment."""

# ruff: noqa: N802 (the names are the environment's)
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from inference.engines.base import EngineRole

DEMO_MODEL = "SmolLM2-135M-Instruct"
# Warm-ups and a request that is being aborted may be in the engine beside the turns of all places.
SPARE_SEQUENCES = 2


class ModelRefused(RuntimeError):
    """This model or setting cannot run on this device; the message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine to be built. Lengths are tokens; ``gpu_fraction`` (0–1) is its share of the GPU's memory; ``alone``
    means that no other engine shares the machine; ``batched_tokens_wished`` that the operator has chosen them."""

    role: EngineRole
    model: str
    max_model_len: int
    max_num_batched_tokens: int = 512
    batched_tokens_wished: bool = False
    max_num_seqs: int = 10
    quantization: str = "auto"
    kv_dtype: str = "auto"
    gpu_fraction: float = 0.9
    alone: bool = True
    chat_template: Path | None = None


class EngineSettings(Protocol):
    """The part of the typed environment that engines are made from."""

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
    def model_fields_set(self) -> set[str]: ...
    @property
    def MAX_CONCURRENT_CONNECTIONS(self) -> int: ...
    @property
    def MODELS_DIR(self) -> Path: ...


def spec_for(settings: EngineSettings, role: EngineRole) -> EngineSpec:
    """The engine of one role as the settings want it."""
    alone = settings.DEPLOY_MODELS != "both"
    demo = str(settings.MODELS_DIR / DEMO_MODEL)
    seqs = settings.MAX_CONCURRENT_CONNECTIONS + SPARE_SEQUENCES
    if role is EngineRole.CHAT:
        return EngineSpec(
            role=role,
            model=settings.AWQ_CHAT_MODEL or settings.CHAT_MODEL or demo,
            max_model_len=settings.CHAT_MAX_LEN,
            max_num_batched_tokens=settings.MAX_NUM_BATCHED_TOKENS_CHAT,
            batched_tokens_wished="MAX_NUM_BATCHED_TOKENS_CHAT" in settings.model_fields_set,
            max_num_seqs=seqs,
            quantization=_first(settings.CHAT_QUANTIZATION, settings.QUANTIZATION),
            kv_dtype=settings.KV_DTYPE,
            gpu_fraction=settings.CHAT_GPU_FRAC or (0.90 if alone else 0.70),
            alone=alone,
            chat_template=settings.CHAT_CHAT_TEMPLATE,
        )
    return EngineSpec(
        role=role,
        model=settings.AWQ_TOOL_MODEL or settings.TOOL_MODEL or demo,
        max_model_len=settings.TOOL_MAX_LEN,
        max_num_batched_tokens=settings.MAX_NUM_BATCHED_TOKENS_TOOL,
        batched_tokens_wished="MAX_NUM_BATCHED_TOKENS_TOOL" in settings.model_fields_set,
        max_num_seqs=seqs,
        quantization=_first(settings.TOOL_QUANTIZATION, settings.QUANTIZATION),
        kv_dtype=settings.KV_DTYPE,
        gpu_fraction=settings.TOOL_GPU_FRAC or (0.90 if alone else 0.20),
        alone=alone,
        chat_template=settings.TOOL_CHAT_TEMPLATE,
    )


def specs(settings: EngineSettings) -> list[EngineSpec]:
    """The engines that this server deploys, in the order in which they are built."""
    deployed = settings.DEPLOY_MODELS
    return [spec_for(settings, role) for role in EngineRole if deployed in ("both", role.value)]


def _first(own: str, both: str) -> str:
    return both if own == "auto" else own

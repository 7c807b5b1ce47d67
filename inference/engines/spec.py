"""The requested engines, from the typed environment."""

# ruff: noqa: N802 (the names are the environment's)
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from inference.engines.base import EngineRole

DEMO_MODEL = "SmolLM2-135M-Instruct"
# Warm-ups and aborted requests need room beside one turn per connection slot.
SPARE_SEQUENCES = 2


class ModelRefused(RuntimeError):
    """The model or a setting cannot run on this device; the message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine to build. Lengths are in tokens. `gpu_fraction` (0 to 1) is its share of GPU memory. `alone`: no other
    engine uses the machine. `batched_tokens_wished`: the operator has set the step size.
    """

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
    """The part of the typed environment that engines use."""

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
    """Return the engine of one role."""
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
    """Return the deployed engines in build order."""
    deployed = settings.DEPLOY_MODELS
    return [spec_for(settings, role) for role in EngineRole if deployed in ("both", role.value)]


def _first(own: str, both: str) -> str:
    return both if own == "auto" else own

"""Float weights to 4-bit ones with llm-compressor: AWQ scaling, then asymmetric integers in groups.

AWQ is Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", arXiv 2306.00978.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from transformers import AutoModelForCausalLM, AutoTokenizer

from inference.engines.device import cpu_flags
from scripts.quantizer.recipe import BITS, GROUP_SIZES, IGNORE, QuantizeError


class _ReportingAWQ(AWQModifier):
    """AWQ that calls ``on_layer`` after each layer."""

    on_layer: Any = None

    def on_sequential_epoch_end(self, state: Any, event: Any, **options: Any) -> None:
        super().on_sequential_epoch_end(state, event, **options)
        self.on_layer()


def working_dtype() -> torch.dtype:
    """The type that this machine calculates with: bfloat16, but float32 on a CPU that would only emulate it."""
    if torch.accelerator.is_available() or {"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags():
        return torch.bfloat16
    return torch.float32


def load(folder: Path, *, for_generation: bool) -> tuple[Any, Any]:
    """Return model and tokenizer, the weights in `working_dtype`.

    Args:
        folder: the model's folder. Code that lies in it is never run.
        for_generation: on the accelerator where there is one; else in host memory, from where llm-compressor moves
            layer by layer.
    """
    place = "auto" if for_generation and torch.accelerator.is_available() else None
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=working_dtype(), device_map=place, trust_remote_code=False
    )
    return model.eval(), AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def quantized_layers(model: Any) -> dict[str, int]:
    """Return the linear layers that are quantized, with their input widths."""
    patterns = [re.compile(name.removeprefix("re:") if name.startswith("re:") else re.escape(name)) for name in IGNORE]
    return {
        name: module.in_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not any(pattern.fullmatch(name) for pattern in patterns)
    }


def group_size(widths: Sequence[int]) -> int:
    """Return the largest of 128, 64, 32 that divides every width.

    Raises:
        QuantizeError: none does, or there is no layer to quantize.
    """
    if not widths:
        raise QuantizeError("this model has no linear layer that could be quantized")
    for size in GROUP_SIZES:
        if all(width % size == 0 for width in widths):
            return size
    odd = sorted({width for width in widths if width % GROUP_SIZES[-1]})
    raise QuantizeError(f"no group size fits: layers of input width {odd[0]} are no multiple of {GROUP_SIZES[-1]}")


def compress(
    model: Any, tokenizer: Any, texts: Sequence[Sequence[int]], size: int, on_layer: Callable[[], None] | None = None
) -> None:
    """Quantize ``model`` in place.

    Args:
        model: the float model, in host memory.
        tokenizer: its tokenizer.
        texts: calibration text as token ids; none means round-to-nearest without AWQ.
        size: weights of one group.
        on_layer: called after each layer.
    """
    weights = QuantizationArgs(
        num_bits=BITS, type="int", strategy="group", group_size=size, symmetric=False, dynamic=False
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    rounding = QuantizationModifier(config_groups={"group_0": scheme}, ignore=list(IGNORE))
    if not texts:
        oneshot(model=model, recipe=[rounding])
        return
    if not torch.accelerator.is_available():
        # 0.14.0.1 pins memory without asking whether there is an accelerator; torch raises where there is none.
        IntermediatesCache.pin_memory = lambda self, *arguments, **options: None
    rows = [{"input_ids": list(ids), "attention_mask": [1] * len(ids)} for ids in texts]
    oneshot(
        model=model,
        processor=tokenizer,
        dataset=Dataset.from_list(rows),
        recipe=[_ReportingAWQ(on_layer=on_layer or (lambda: None)), rounding],
        num_calibration_samples=len(rows),
        max_seq_length=max(len(ids) for ids in texts),
        shuffle_calibration_samples=False,
    )


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write weights, config, tokenizer and chat template in the compressed-tensors format, which vLLM loads.

    Scales and what stays float are written in bfloat16: vLLM's CPU kernels for 4-bit weights know no other type.
    """
    model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder, save_compressed=True)
    tokenizer.save_pretrained(folder)

"""Quantize a model into the formats of other tools. Runs in the quantizer's environment, one process for all formats.

    .venv-quantize/bin/python -m tests.quantizer.make_fixtures SOURCE OUT

Makes OUT/gptq and OUT/autoawq with auto-round (round to nearest, no data) and OUT/int8 (W8A8) with llm-compressor.
"""

from __future__ import annotations

import sys
from pathlib import Path


def rounded(source: str, out: Path, form: str, symmetric: bool) -> None:
    """Write 4-bit weights in another format. auto-round may nest a folder below the one that it is given."""
    from auto_round import AutoRound

    work = out.with_name(f".{out.name}")
    rounding = AutoRound(source, scheme="W4A16", iters=0, disable_opt_rtn=True, group_size=64, sym=symmetric)
    rounding.quantize_and_save(output_dir=str(work), format=form)
    (config,) = work.rglob("config.json")
    config.parent.rename(out)


def int8(source: str, out: Path) -> None:
    """Write 8-bit weights with 8-bit activations, in the compressed-tensors format."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    oneshot(model=model, recipe=[QuantizationModifier(targets="Linear", scheme="INT8", ignore=["lm_head"])])
    model.save_pretrained(out, save_compressed=True)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    source, folder = sys.argv[1], Path(sys.argv[2])
    rounded(source, folder / "gptq", "auto_gptq", True)
    rounded(source, folder / "autoawq", "auto_awq", False)
    int8(source, folder / "int8")

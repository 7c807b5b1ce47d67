"""The bar of an export: AWQ loses at most 0.7 of what rounding to nearest loses, on the demo model."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.quantizer.conftest import DEMO, AwqStart
from tests.server import CHECKOUT, MODELS

pytestmark = [pytest.mark.quantizer]

# What the server's own transformers makes of each folder; it decompresses the export's format.
PERPLEXITY = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
from scripts.quantizer.perplexity import perplexity
for folder in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    print(perplexity(model, AutoTokenizer.from_pretrained(folder)))
"""
ROUND = """
import sys
from pathlib import Path
from scripts.quantizer import compress
model, tokenizer = compress.load(Path(sys.argv[1]), for_generation=False)
size = compress.group_size(list(compress.quantized_layers(model).values()))
compress.compress(model, tokenizer, [], size)
compress.save(model, tokenizer, Path(sys.argv[2]))
"""


def python(environment: str, code: str, *arguments: Path) -> list[str]:
    """Run code from the checkout's root; return the lines that it prints."""
    done = subprocess.run(
        [CHECKOUT / environment / "bin/python", "-c", code, *arguments], cwd=CHECKOUT, stdin=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}, capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()


def test_awq_is_better_than_rounding(tmp_path: Path, awq_start: AwqStart) -> None:
    facts = json.loads((awq_start.export / "awq_metadata.json").read_text())
    python(".venv-quantize", ROUND, MODELS / DEMO, tmp_path / "rounded")
    lines = python(".venv", PERPLEXITY, MODELS / DEMO, awq_start.export, tmp_path / "rounded")
    plain, awq, rounded = map(float, lines[-3:])
    print(f"perplexity: float {plain:.3f}, AWQ {awq:.3f}, rounding to nearest {rounded:.3f}")
    assert awq == pytest.approx(facts["perplexity"]["quantized"], rel=0.02)
    assert plain == pytest.approx(facts["perplexity"]["float"], rel=0.02)
    assert awq - plain < 0.7 * (rounded - plain)

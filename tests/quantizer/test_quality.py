"""The bar of an export: AWQ loses at most 0.7 of what rounding to nearest loses, on the demo model."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.server import CHECKOUT, MODELS

pytestmark = [pytest.mark.quantizer]
QUANTIZER = CHECKOUT / ".venv-quantize/bin/python"
DEMO = MODELS / "SmolLM2-135M-Instruct"

# What the server's own transformers makes of a folder; the export's format is decompressed by it.
PERPLEXITY = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
from scripts.quantizer.perplexity import perplexity
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="float32").eval()
print(perplexity(model, AutoTokenizer.from_pretrained(sys.argv[1])))
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


def python(interpreter: str | Path, code: str, *arguments: Path) -> str:
    """What code prints last, run from the checkout's root."""
    done = subprocess.run(
        [interpreter, "-c", code, *arguments], cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return (done.stdout.strip().splitlines() or [""])[-1]


def quantize(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Quantize the demo model through the script; the export is kept in MODELS_DIR between runs."""
    done = subprocess.run(
        ["bash", "scripts/quantize.sh", str(DEMO), *options], cwd=CHECKOUT, stdin=subprocess.DEVNULL,
        env={**os.environ, "RUN_DIR": str(folder / "run")}, capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_the_demo_model_is_quantized_once(tmp_path: Path) -> None:
    done = quantize(tmp_path, "--role", "both")
    export = Path(done.stdout.strip())
    facts = json.loads((export / "awq_metadata.json").read_text())
    assert facts["group_size"] == 64  # 576 is no multiple of 128
    assert facts["bytes_after"] < 0.25 * facts["bytes_before"]
    again = quantize(tmp_path, "--role", "chat")
    assert again.stdout == done.stdout
    assert "is used again" in again.stderr


def test_awq_is_better_than_rounding(tmp_path: Path) -> None:
    export = Path(quantize(tmp_path, "--role", "both").stdout.strip())
    facts = json.loads((export / "awq_metadata.json").read_text())
    python(QUANTIZER, ROUND, DEMO, tmp_path / "rounded")
    server = CHECKOUT / ".venv/bin/python"
    plain, awq, rounded = (float(python(server, PERPLEXITY, path)) for path in (DEMO, export, tmp_path / "rounded"))
    print(f"perplexity: float {plain:.3f}, AWQ {awq:.3f}, rounding to nearest {rounded:.3f}")
    assert awq == pytest.approx(facts["perplexity"]["quantized"], rel=0.02)
    assert plain == pytest.approx(facts["perplexity"]["float"], rel=0.02)
    assert awq - plain < 0.7 * (rounded - plain)

"""Quantized models served end to end by real engines: an export of ours, GPTQ, AutoAWQ's format, INT8 W8A8.

Where the processor has no AVX-512, vLLM's op for 4-bit weights is a reference in plain PyTorch (`reference_op`); a test
of its own holds that such a processor refuses these weights.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.engines import model_config
from inference.engines.device import cpu_flags
from tests.server import CHECKOUT, TINY, TINY_ENV, YapServer
from tests.wsclient import client

pytestmark = [pytest.mark.quantizer]
QUANTIZER = CHECKOUT / ".venv-quantize/bin/python"

W8A8 = """
import sys
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from transformers import AutoModelForCausalLM, AutoTokenizer
source, out = sys.argv[1:]
model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
oneshot(model=model, recipe=[QuantizationModifier(targets="Linear", scheme="INT8", ignore=["lm_head"])])
model.save_pretrained(out, save_compressed=True)
tokenizer.save_pretrained(out)
"""
AUTO_ROUND = """
import sys
from auto_round import AutoRound
source, out, form = sys.argv[1:]
rounding = AutoRound(source, scheme="W4A16", iters=0, disable_opt_rtn=True, group_size=64, sym=form == "auto_gptq")
rounding.quantize_and_save(output_dir=out, format=form)
"""


def quantizer(code: str, *arguments: str | Path) -> None:
    """Run code in the quantizer's environment."""
    done = subprocess.run(
        [QUANTIZER, "-c", code, *map(str, arguments)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def ours(folder: Path) -> Path:
    """An export of the quantizer, through its script."""
    done = subprocess.run(
        ["bash", "scripts/quantize.sh", str(TINY), "--out", str(folder / "export"), "--role", "both"], cwd=CHECKOUT,
        env={**os.environ, "AWQ_NSAMPLES": "2", "AWQ_SEQLEN": "64", "RUN_DIR": str(folder / "run")},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == str(folder / "export")
    assert "AWQ, 14 layers in groups of 64, 2 texts" in done.stderr
    return folder / "export"


def rounded(form: str) -> Callable[[Path], Path]:
    """A maker of a model in another quantizer's format."""

    def make(folder: Path) -> Path:
        quantizer(AUTO_ROUND, TINY, folder, form)
        (made,) = [path.parent for path in folder.rglob("config.json")]
        return made

    return make


def int8(folder: Path) -> Path:
    quantizer(W8A8, TINY, folder / "model")
    return folder / "model"


@pytest.mark.parametrize(
    ("make", "quantization", "bits", "variables"),
    [
        (ours, "compressed-tensors", 4, {"AWQ_CHAT_MODEL": "{model}", "QUANTIZATION": "awq"}),
        (rounded("auto_gptq"), "gptq", 4, {"CHAT_MODEL": "{model}"}),
        (rounded("auto_awq"), "awq", 4, {"AWQ_CHAT_MODEL": "{model}", "QUANTIZATION": "awq"}),
        (int8, "compressed-tensors", 8, {"CHAT_MODEL": "{model}"}),
    ],
    ids=["ours", "gptq", "autoawq", "int8"],
)
async def test_a_quantized_model_talks(
    tmp_path: Path, server_folder: Callable[[], Path], make: Callable[[Path], Path], quantization: str, bits: int,
    variables: dict[str, str],
) -> None:  # fmt: skip
    model = make(tmp_path)
    config = model_config.read(str(model))
    assert (config.quantization, config.bits) == (quantization, bits)
    given = {name: value.format(model=model) for name, value in variables.items()}
    path = os.pathsep.join([str(CHECKOUT / "tests/quantizer/reference_op"), str(CHECKOUT)])
    extra = {"PYTHONPATH": path} if bits == 4 and "avx512f" not in cpu_flags() else {}
    settings = {**TINY_ENV, "TOOL_MODEL": "", "CHAT_MODEL": "", "DEPLOY_MODELS": "chat", **given, **extra}
    server = YapServer(server_folder(), **settings)
    try:
        server.start()
        async with client(server.ws_url, server.api_key) as yap:
            answer = await yap.say("Hello!", sampling={"temperature": 0.5})
        assert answer.usage["completion_tokens"] > 0
        assert answer["final"]["normalized_text"] == answer.text
    finally:
        server.stop()


@pytest.mark.skipif("avx512f" in cpu_flags(), reason="this processor has AVX-512: nothing to refuse")
def test_without_avx_512_these_weights_are_refused(tmp_path: Path, server_folder: Callable[[], Path]) -> None:
    (tmp_path / "config.json").write_text(
        '{"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "awq", "bits": 4}}'
    )
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    settings = {
        **TINY_ENV,
        "TOOL_MODEL": "",
        "CHAT_MODEL": "",
        "AWQ_CHAT_MODEL": str(tmp_path),
        "DEPLOY_MODELS": "chat",
    }
    server = YapServer(server_folder(), **settings)
    try:
        with pytest.raises(AssertionError, match="4-bit weights need AVX-512"):
            server.start(60)
    finally:
        server.stop()

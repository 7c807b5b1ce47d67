"""Models in the formats of other quantizers, served by real engines: GPTQ, AutoAWQ's format, INT8 W8A8.

Where the processor has no AVX-512, vLLM's operation for 4-bit weights is a reference in plain PyTorch (`reference_op`);
`test_main_awq` and a test here hold that such a processor refuses these weights.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.engines import model_config
from inference.engines.device import cpu_flags
from tests.quantizer.conftest import kernel
from tests.server import CHECKOUT, TINY, TINY_ENV, YapServer
from tests.wsclient import client

pytestmark = [pytest.mark.quantizer]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as `gptq`, `autoawq` and `int8`, made by other tools."""
    folder = tmp_path_factory.mktemp("formats")
    done = subprocess.run(
        [CHECKOUT / ".venv-quantize/bin/python", "-m", "tests.quantizer.make_fixtures", TINY, folder], cwd=CHECKOUT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize(
    ("name", "quantization", "bits", "variable"),
    [
        ("gptq", "gptq", 4, "CHAT_MODEL"),
        ("autoawq", "awq", 4, "AWQ_CHAT_MODEL"),
        ("int8", "compressed-tensors", 8, "CHAT_MODEL"),
    ],
)
async def test_a_quantized_model_talks(
    models: Path, server_folder: Callable[[], Path], name: str, quantization: str, bits: int, variable: str
) -> None:
    config = model_config.read(str(models / name))
    assert (config.quantization, config.bits) == (quantization, bits)
    stored = (models / name / "model.safetensors").read_bytes()[:65536]
    assert (b"qweight" if bits == 4 else b"weight_scale") in stored  # no layer's float weights could be loaded instead
    named = {"TOOL_MODEL": "", "CHAT_MODEL": "", "DEPLOY_MODELS": "chat", variable: str(models / name)}
    server = YapServer(server_folder(), **{**TINY_ENV, **named, **(kernel() if bits == 4 else {})})
    try:
        server.start()
        async with client(server.ws_url, server.api_key) as yap:
            answer = await yap.say("Hello!", sampling={"temperature": 0.5})
        assert answer.usage["completion_tokens"] > 0
        assert answer["final"]["normalized_text"] == answer.text
    finally:
        server.stop()


@pytest.mark.skipif("avx512f" in cpu_flags(), reason="this processor has AVX-512: nothing to refuse")
@pytest.mark.parametrize(("name", "variable"), [("gptq", "CHAT_MODEL"), ("autoawq", "AWQ_CHAT_MODEL")])
def test_without_avx_512_these_weights_are_refused(
    models: Path, server_folder: Callable[[], Path], name: str, variable: str
) -> None:
    named = {"TOOL_MODEL": "", "CHAT_MODEL": "", "DEPLOY_MODELS": "chat", variable: str(models / name)}
    server = YapServer(server_folder(), **{**TINY_ENV, **named})
    try:
        assert server.spawn().wait(60) != 0
        assert "4-bit weights need AVX-512 on a CPU, and this one has none" in server.tail()
    finally:
        server.stop()

"""`main.sh awq` end to end on the demo model: refused, or quantized, served, and used again."""

from __future__ import annotations

import json
import re
import time

import pytest

from inference.engines.device import cpu_flags
from tests.clone import KEY, Clone
from tests.quantizer.conftest import CALIBRATION, DEMO, AwqStart, kernel
from tests.wsclient import client

pytestmark = [pytest.mark.quantizer]


@pytest.mark.skipif("avx512f" in cpu_flags(), reason="this processor has AVX-512: nothing to refuse")
def test_without_avx_512_the_start_is_refused_before_quantizing(awq_clone: Clone) -> None:
    began = time.monotonic()
    done = awq_clone.run("main.sh", "awq", environ=CALIBRATION)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"yap: chat model {DEMO}: 4-bit weights need AVX-512 on a CPU, and this one has none\n"
    assert time.monotonic() - began < 30
    assert not (awq_clone.root / ".models/awq").exists()


async def test_both_engines_are_quantized_once_and_served(awq_start: AwqStart) -> None:
    said = awq_start.done.stderr
    assert said.count("AWQ, 210 layers in groups of 64, 4 texts") == 1  # 576 is no multiple of 128
    assert re.search(r"layer \d+ of 31, about \d+ (s|min) left", said)
    assert "ready (pid" in awq_start.done.stdout
    facts = json.loads((awq_start.export / "awq_metadata.json").read_text())
    assert facts["roles"] == ["chat", "tool"]
    assert facts["bytes_after"] < 0.25 * facts["bytes_before"]
    print(
        f"main.sh awq: {awq_start.seconds:.0f} s, {facts['bytes_before'] / 1e6:.0f} MB → "
        f"{facts['bytes_after'] / 1e6:.0f} MB, perplexity {facts['perplexity']}"
    )
    async with client(awq_start.clone.ws_url, KEY) as yap:
        answer = await yap.say("What is the capital of France?", sampling={"temperature": 0.2})
    assert re.search(r"[A-Za-z]{3,} [A-Za-z]{2,} [A-Za-z]{2,}", answer.text), answer.text


async def test_a_second_start_uses_the_export_again(awq_start: AwqStart) -> None:
    """restart.sh replaces the running server; `quantize.sh` finds the same export."""
    clone = awq_start.clone
    again = CALIBRATION | kernel(clone.root)
    changed = awq_start.export.stat().st_mtime
    began = time.monotonic()
    done = clone.run("restart.sh", environ=again)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    print(f"restart.sh: {time.monotonic() - began:.0f} s")
    assert f"the export {awq_start.export} is used again" in done.stderr
    assert "groups of 64" not in done.stderr
    assert awq_start.export.stat().st_mtime == changed
    async with client(clone.ws_url, KEY) as yap:
        assert (await yap.say("Hello!")).usage["completion_tokens"] > 0
    clone.run("stop.sh", environ={"NUKE_ALL": "0"})
    made = clone.run("quantize.sh", f".models/{DEMO}", "--role", "both", environ=again)
    assert (made.returncode, made.stdout) == (0, f"{awq_start.export}\n"), made.stderr
    assert "is used again" in made.stderr

"""One clone in which `main.sh awq` quantizes and serves the demo model, for all tests of this folder."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from inference.engines.device import cpu_flags
from tests.clone import Clone
from tests.server import CHECKOUT

DEMO = "SmolLM2-135M-Instruct"
# A quarter of the tokens that a CPU calibrates with by default, a fifth of the time; the bar of the quality test holds.
CALIBRATION = {"AWQ_NSAMPLES": "4", "AWQ_SEQLEN": "128"}


def kernel(root: Path = CHECKOUT) -> dict[str, str]:
    """Return the variables that give vLLM its 4-bit operation where the processor has no AVX-512 (`reference_op`)."""
    if "avx512f" in cpu_flags():
        return {}
    return {"PYTHONPATH": os.pathsep.join([str(root / "tests/quantizer/reference_op"), str(root)])}


@dataclass(frozen=True)
class AwqStart:
    """A start by `main.sh awq`: what it printed, how long it took (seconds), and the export that it made."""

    clone: Clone
    done: subprocess.CompletedProcess[str]
    seconds: float
    export: Path


@pytest.fixture(scope="session")
def awq_clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A copy of the checkout with the demo model and the quantizer's packages; no export in it."""
    clone = Clone(tmp_path_factory.mktemp("awq") / "clone", models=[DEMO], environments=(".venv", ".venv-quantize"))
    yield clone
    clone.close()


@pytest.fixture(scope="session")
def awq_start(awq_clone: Clone) -> AwqStart:
    """`main.sh awq`: both engines on one export of the demo model."""
    began = time.monotonic()
    done = awq_clone.run("main.sh", "awq", timeout=1500, environ=CALIBRATION | kernel(awq_clone.root))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    (export,) = (awq_clone.root / ".models/awq").glob(f"{DEMO}-*")
    return AwqStart(awq_clone, done, time.monotonic() - began, export)

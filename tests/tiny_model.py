"""Write a tiny random Llama with the demo model's tokenizer: an engine that costs almost nothing, for tests.

    .venv/bin/python -m tests.tiny_model [FOLDER]

What it says is noise, the same noise on every machine (fixed seed). Needs the demo model (scripts/demo_model.py), of
which it takes the tokenizer. Prints the folder; one that is complete is left as it is.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

MODELS_DIR = Path(__file__).resolve().parent.parent / ".models"
DEMO = MODELS_DIR / "SmolLM2-135M-Instruct"
NAME = "tiny-random-llama"


def write(folder: Path, tokenizer_from: Path) -> None:
    """Config, float32 weights and tokenizer into ``folder``: 2 layers, 2 heads, hidden size 64, 8192 positions."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # of width 32: the narrowest that CPU kernels know
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    torch.manual_seed(20_260)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)


def prepare(target: Path = MODELS_DIR / NAME, tokenizer_from: Path = DEMO) -> Path:
    """The folder of the tiny model, made where it is missing; it appears complete or not at all."""
    if (target / "config.json").is_file():
        return target
    if not (tokenizer_from / "tokenizer.json").is_file():
        raise FileNotFoundError(f"no tokenizer in {tokenizer_from}: run scripts/demo_model.py first")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write(work / "model", tokenizer_from)
        (work / "model").rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def main() -> int:
    """Command line; returns the exit status."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    try:
        print(prepare(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else MODELS_DIR / NAME))
    except FileNotFoundError as error:
        print(f"yap: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

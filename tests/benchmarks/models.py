"""The model to measure: a folder or Hub id, a folder without weights (random weights), or the tiny Llama."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import inference
from inference.engines.tokenizer import CHATML_TEMPLATE
from tests import tiny_model
from tests.benchmarks.prompts import newcomers

VOCABULARY = 4096


@dataclass(frozen=True, slots=True)
class Model:
    """A model. `path` is passed to the systems. `dummy`: the engine generates random weights. `tiny`: the built-in tiny
    model.
    """

    name: str
    path: str
    dummy: bool
    tiny: bool = False


def find(wanted: str | None, out: Path) -> Model:
    """Find the requested model; None selects the tiny one."""
    if wanted is None:
        folder = _tiny(out / "model" / tiny_model.NAME)
        return Model(folder.name, str(folder), dummy=False, tiny=True)
    folder = Path(wanted).expanduser()
    if not folder.is_dir():
        return Model(wanted, wanted, dummy=False)
    if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
        return Model(folder.name, str(folder.resolve()), dummy=False)
    stand_in = out / "model" / folder.name
    stand_in.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.is_file() and not (stand_in / file.name).exists():
            (stand_in / file.name).symlink_to(file.resolve())
    (stand_in / "model.safetensors").touch()  # a model folder needs a weight file; its content is never read
    return Model(folder.name, str(stand_in.resolve()), dummy=True)


def _tiny(folder: Path) -> Path:
    """Create the tiny Llama of the tests with a vocabulary of its own.

    The original has the demo model's 49,152 tokens, and sampling from that many takes two thirds of a step of such an
    engine.
    """
    with tempfile.TemporaryDirectory() as scratch:
        _own_tokenizer(Path(scratch))
        tiny_model.write(folder, Path(scratch))
    return folder


def _own_tokenizer(folder: Path) -> None:
    """Train a byte-level tokenizer on the benchmark's prompts and this project's texts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    learner = ByteLevelBPETokenizer()
    asked = [prompt.persona for prompt in islice(newcomers("words"), 20)]
    sources = [path.read_text() for path in sorted(Path(inference.__file__).parent.rglob("*.py"))]
    learner.train_from_iterator([*asked, *sources], vocab_size=VOCABULARY, special_tokens=specials, show_progress=False)
    learner.save(str(folder / "bpe.json"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "bpe.json"),
        bos_token=specials[1],
        eos_token=specials[2],
        pad_token=specials[2],
        additional_special_tokens=specials,
        chat_template=CHATML_TEMPLATE,
    )
    tokenizer.save_pretrained(folder)

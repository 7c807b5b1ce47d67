"""The model to measure with: a folder or Hub id as it is, one without weights with random ones, or the tiny Llama."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import inference
from inference.engines.tokenizer import CHATML_TEMPLATE
from scripts import tiny_model
from tests.benchmarks.prompts import newcomers

VOCABULARY = 4096


@dataclass(frozen=True, slots=True)
class Model:
    """``path`` is what the systems are given; ``dummy``: its weights are made up by the engine; ``tiny``: our own."""

    name: str
    path: str
    dummy: bool
    tiny: bool = False


def find(wanted: str | None, out: Path) -> Model:
    """The model that was asked for (None: the tiny one)."""
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
    (stand_in / "model.safetensors").touch()  # a model folder is known by its weights; these are never read
    return Model(folder.name, str(stand_in.resolve()), dummy=True)


def _tiny(folder: Path) -> Path:
    """The tiny Llama of the tests with a vocabulary of its own. Theirs has the demo model's 49,152 tokens, and drawing
    one of so many is two thirds of what a step of such an engine takes."""
    with tempfile.TemporaryDirectory() as scratch:
        _own_tokenizer(Path(scratch))
        tiny_model.write(folder, Path(scratch))
    return folder


def _own_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer learnt from what is asked, and from this project's own words."""
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

"""The model to measure with: a folder or Hub id as it is, one without weights with random ones, or the tiny Llama."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from inference.engines.tokenizer import CHATML_TEMPLATE
from scripts import tiny_model


@dataclass(frozen=True, slots=True)
class Model:
    """``path`` is what the systems are given; ``dummy``: its weights are made up by the engine; ``tiny``: our own."""

    name: str
    path: str
    dummy: bool
    tiny: bool = False


def find(wanted: str | None, out: Path) -> Model:
    """The model that was asked for (None: the tiny one, made where it is missing)."""
    if wanted is None:
        folder = _tiny(out)
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


def _tiny(out: Path) -> Path:
    ready = tiny_model.MODELS_DIR / tiny_model.NAME
    if (ready / "config.json").is_file() or (tiny_model.DEMO / "tokenizer.json").is_file():
        return tiny_model.prepare()
    folder = out / "model" / tiny_model.NAME
    if not (folder / "config.json").is_file():
        with tempfile.TemporaryDirectory() as scratch:
            _own_tokenizer(Path(scratch))
            tiny_model.write(folder, Path(scratch))
    return folder


def _own_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer learnt from this project's own words, for machines that have no other."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    learner = ByteLevelBPETokenizer()
    sources = [str(path) for path in Path(__file__).resolve().parent.parent.parent.rglob("inference/*.py")]
    learner.train(sources, vocab_size=8192, special_tokens=specials, show_progress=False)
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

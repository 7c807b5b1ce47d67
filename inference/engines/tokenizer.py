"""Loads a model's tokenizer and chat template, checks that text survives them, and finds the end tokens of a reply."""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.engines.spec import ModelRefused

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MAX_TEMPLATE_BYTES = 1 << 20
# Every kind of text that a broken tokenizer is known to change. Each part is checked on its own, for the message.
PROBES = (
    "line one\nline two\n\n\nafter two empty lines",
    "one two  three   four     five",
    "\ttabs\t\tand \t mixed",
    "Übergröße, señor, Ærøskøbing",
    "你好，世界。 こんにちは 한국어",
    "😀 👩‍👩‍👧 🦜",
    '<b>bold</b> <br/> {"a": [1, 2.5]} `code` 50 % …',
)
_MARK = "Mark0"
_HALF = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class LoadedTokenizer:
    """A tokenizer that gives text back as it was.

    Attributes:
        tokenizer: ready to use, with a chat template.
        repaired: True where transformers' own choice of a class loses text and another class is used. vLLM must then
            load the tokenizer from a folder that :meth:`save` writes.
    """

    tokenizer: PreTrainedTokenizerBase
    repaired: bool = False

    def save(self, folder: str) -> None:
        """Write the tokenizer where ``AutoTokenizer`` reads it with the right class."""
        self.tokenizer.save_pretrained(folder)
        path = Path(folder) / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        path.write_text(json.dumps(config), encoding="utf-8")


def read_tokenizer(model: str, template_file: Path | None = None) -> LoadedTokenizer:
    """Load the tokenizer of a Hub id or a local folder and check that text survives it.

    Args:
        model: Hub id or local folder.
        template_file: a chat template that replaces the model's own; None keeps the model's, or ChatML where the model
            has none.

    Raises:
        ModelRefused: the tokenizer does not load or loses text, or the template file cannot be read.
    """
    tokenizer, repaired = _load(model), False
    lost = lost_text(tokenizer)
    if lost is not None:
        tokenizer, repaired = _as_stored(model, type(tokenizer).__name__, lost), True
    tokenizer.clean_up_tokenization_spaces = False  # a default from BERT that deletes blanks before punctuation
    if template_file is not None:
        tokenizer.chat_template = _read_template(model, template_file)
    elif not tokenizer.chat_template:
        logger.warning("model %s: its tokenizer has no chat template; ChatML is used", model)
        tokenizer.chat_template = CHATML_TEMPLATE
    return LoadedTokenizer(tokenizer, repaired)


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of :func:`read_tokenizer` alone."""
    return read_tokenizer(model).tokenizer


def lost_text(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str] | None:
    """Encode and decode each of :data:`PROBES`.

    Returns:
        The first probe that comes back changed, and the changed text; None where all come back. A blank that a
        SentencePiece tokenizer puts first is no change; nor is a composed letter in the place of a decomposed one.
    """
    for probe in PROBES:
        ids = tokenizer(probe, add_special_tokens=False)["input_ids"]
        text = str(tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False))
        if unicodedata.normalize("NFC", text).removeprefix(" ") != unicodedata.normalize("NFC", probe):
            return probe, text
    return None


def _load(model: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ModelRefused(f"model {model}: its tokenizer does not load ({reason[0] if reason else error!r})") from None
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ModelRefused(f"model {model}: its tokenizer has no fast form (tokenizer.json)")
    return tokenizer


def _as_stored(model: str, name: str, lost: tuple[str, str]) -> PreTrainedTokenizerBase:
    """Read tokenizer.json without the class that the model's config names.

    transformers 5 builds some classes (LlamaTokenizer for DeepSeek's models) from the vocabulary alone and ignores how
    tokenizer.json splits a text.
    """
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(model)
        still_lost = lost_text(tokenizer)
    except Exception as error:
        logger.debug("model %s: tokenizer.json does not load: %s", model, error)
        still_lost = lost
    if still_lost is not None:
        probe, text = still_lost
        raise ModelRefused(f"model {model}: its tokenizer loses text: {probe!r} comes back as {text!r}")
    logger.warning("model %s: %s loses text (%r becomes %r); tokenizer.json is used without it", model, name, *lost)
    return tokenizer


def _read_template(model: str, file: Path) -> str:
    path = file.expanduser()
    try:
        if path.stat().st_size > MAX_TEMPLATE_BYTES:
            raise ModelRefused(f"model {model}: the chat template {file} is larger than {MAX_TEMPLATE_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ModelRefused(f"model {model}: the chat template {file} cannot be read: {reason}") from None
    if not text.strip():
        raise ModelRefused(f"model {model}: the chat template {file} is empty")
    return text


def end_token_ids(tokenizer: PreTrainedTokenizerBase, model: str) -> frozenset[int]:
    """Return every token that ends a reply: the tokenizer's, the generation config's, and the template's end of turn.

    Args:
        tokenizer: the tokenizer.
        model: Hub id or folder, for its generation config.

    Returns:
        Token ids, without order.
    """
    ends = {*_ids(tokenizer.eos_token_id), *_generation_config_ends(model)}
    turn_end = _end_of_turn(tokenizer)
    return frozenset(ends if turn_end is None else ends | {turn_end})


def repeated_text(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> str:
    """Find the text that vLLM's detokenizer repeats before the first generated text; usually empty.

    If the prompt ends with half a character (after a rewind, or a request for one token), a `DecodeStream` primed
    with the prompt has no place to begin. The stream returns the text of the whole prompt once the character is
    complete.

    Args:
        tokenizer: the engine's tokenizer.
        prompt_ids: token ids of the whole prompt.

    Returns:
        The repeated text.
    """
    decode = tokenizer.backend_tokenizer.decode
    if not decode(list(prompt_ids[-4:])).endswith(_HALF):
        return ""
    return str(decode(list(prompt_ids), skip_special_tokens=True)).rstrip(_HALF)


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the special token right after an assistant message, if the template puts one there."""
    exchange = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _MARK}]
    try:
        text = str(tokenizer.apply_chat_template(exchange, tokenize=False))
    except Exception as error:
        logger.warning("the chat template cannot render a plain exchange: %s", error)
        return None
    rest = text.rpartition(_MARK)[2].lstrip()
    ids = tokenizer.encode(rest, add_special_tokens=False) if rest else []
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return ids[0] if ids and ids[0] in special else None


def _generation_config_ends(model: str) -> set[int]:
    path = Path(model).expanduser() / "generation_config.json"
    if not path.is_file():
        from huggingface_hub import try_to_load_from_cache

        try:
            cached = try_to_load_from_cache(model, "generation_config.json")
        except ValueError:
            return set()
        if not isinstance(cached, str):
            return set()
        path = Path(cached)
    try:
        return set(_ids(json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")))
    except ValueError:
        return set()


def _ids(value: Any) -> Iterable[int]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)

"""A model's tokenizer and its end tokens, for engines and for whoever counts tokens."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
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
_MARK = "Mark0"
_HALF = "\N{REPLACEMENT CHARACTER}"


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hub id or local folder, with ChatML for a template where it has none. Raises
    :class:`ModelRefused`."""
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ModelRefused(f"model {model}: its tokenizer does not load ({reason[0] if reason else error!r})") from None
    if not tokenizer.chat_template:
        logger.warning("model %s: its tokenizer has no chat template; ChatML is used", model)
        tokenizer.chat_template = CHATML_TEMPLATE
    return tokenizer


def end_token_ids(tokenizer: PreTrainedTokenizerBase, model: str) -> frozenset[int]:
    """Every token that ends a reply: the tokenizer's, the generation config's, and the template's end of a turn."""
    ends = {*_ids(tokenizer.eos_token_id), *_generation_config_ends(model)}
    turn_end = _end_of_turn(tokenizer)
    return frozenset(ends if turn_end is None else ends | {turn_end})


def repeated_text(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> str:
    """What a detokenizer that is primed with a prompt says again before its first text, and must not.

    Where the prompt ends with half a character (a reply went back to it, or was asked for a single token), a
    ``DecodeStream`` finds no place to begin, and gives the text of the whole prompt once the character is complete.
    """
    decode = tokenizer.backend_tokenizer.decode
    if not decode(list(prompt_ids[-4:])).endswith(_HALF):
        return ""
    return str(decode(list(prompt_ids), skip_special_tokens=True)).rstrip(_HALF)


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token right after what the assistant said, if the template puts one there."""
    said = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _MARK}]
    try:
        text = str(tokenizer.apply_chat_template(said, tokenize=False))
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

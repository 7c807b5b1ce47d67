"""Calibration text as token ids: written by the float model itself, read from a file, or from a data set of the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from scripts.quantizer.recipe import QuantizeError

# A reply of this many tokens shows a model's own style; longer ones of small models repeat themselves.
MAX_REPLY_TOKENS = 512
BATCH = 8  # texts that are written side by side: a step costs little more for eight than for one
_SHORTEST = 16  # tokens; less than that calibrates nothing


def encode_chat(tokenizer: Any, messages: Sequence[dict[str, str]], *, to_be_continued: bool) -> list[int]:
    """Return the ids of a chat by the model's own template; without a template, of plain labelled lines.

    A template that knows no system message gets its text in front of the first user message.
    """
    if not tokenizer.chat_template:
        lines = "\n".join(f"{message['role'].title()}: {message['content']}" for message in messages)
        text = f"{lines}\nAssistant:" if to_be_continued else lines
        return list(tokenizer(text)["input_ids"])
    chat = list(messages)
    try:
        rendered = _render(tokenizer, chat, to_be_continued)
    except Exception:  # a template is a program of the model's author and may raise anything
        if chat[0]["role"] != "system" or len(chat) < 2:
            raise
        merged = {"role": "user", "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}
        rendered = _render(tokenizer, [merged, *chat[2:]], to_be_continued)
    return list(tokenizer(rendered, add_special_tokens=False)["input_ids"])


def _render(tokenizer: Any, chat: Sequence[dict[str, str]], to_be_continued: bool) -> str:
    return str(
        tokenizer.apply_chat_template(
            list(chat), tokenize=False, add_generation_prompt=to_be_continued, enable_thinking=False
        )
    )


def written_by(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[dict[str, str]]], tokens: int, step: Callable[[int], None]
) -> list[list[int]]:
    """Let the float model go on with every prompt, sampled at temperature 1; return prompts and replies together.

    Args:
        model: the float model.
        tokenizer: its tokenizer.
        prompts: beginnings of chats that end with a user's message.
        tokens: longest text; of a longer prompt the end is kept.
        step: called with the number of texts that are written.
    """
    torch.manual_seed(20_261)
    begun = [encode_chat(tokenizer, messages, to_be_continued=True)[-(tokens * 3 // 4) :] for messages in prompts]
    begun.sort(key=len)  # prompts of one batch have nearly one length
    texts: list[list[int]] = []
    for first in range(0, len(begun), BATCH):
        batch = begun[first : first + BATCH]
        positions = getattr(model.config, "max_position_embeddings", None) or tokens + MAX_REPLY_TOKENS
        room = min(tokens - min(map(len, batch)), MAX_REPLY_TOKENS, positions - max(map(len, batch)))
        texts += [text[:tokens] for text in _written(model, tokenizer, batch, room)]
        step(len(texts))
    return texts


def _written(model: Any, tokenizer: Any, batch: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
    width = max(map(len, batch))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in batch], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch], device=model.device)
    written = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=new_tokens,
        pad_token_id=pad,
    )
    ends = {pad, tokenizer.eos_token_id}
    texts = []
    for row, prompt in zip(written.tolist(), batch, strict=True):
        reply = row[width:]
        end = next((at for at, token in enumerate(reply) if token in ends), len(reply))
        texts.append([*prompt, *reply[: end + 1]])
    return texts


def from_rows(tokenizer: Any, rows: Iterable[object], samples: int, tokens: int) -> list[list[int]]:
    """Return up to ``samples`` texts of at most ``tokens`` tokens, from rows with a `text` or a chat in them.

    Raises:
        QuantizeError: a row has neither, or no row is long enough.
    """
    texts: list[list[int]] = []
    for row in rows:
        ids = _row_ids(tokenizer, row)[:tokens]
        if len(ids) >= min(_SHORTEST, tokens):
            texts.append(ids)
        if len(texts) == samples:
            break
    if not texts:
        raise QuantizeError(f"the calibration data has no text of {_SHORTEST} tokens or more")
    return texts


def _row_ids(tokenizer: Any, row: object) -> list[int]:
    if isinstance(row, dict):
        chat = row.get("messages") or row.get("conversations")
        if isinstance(chat, list) and all(isinstance(one, dict) and "role" in one and "content" in one for one in chat):
            return encode_chat(tokenizer, chat, to_be_continued=False)
        if isinstance(row.get("text"), str):
            return list(tokenizer(row["text"])["input_ids"])
    raise QuantizeError("calibration data: a row has neither text nor messages (a list of role and content)")


def from_file(tokenizer: Any, path: Path, samples: int, tokens: int) -> list[list[int]]:
    """Return texts from a JSONL file of `{"text"}` or `{"messages"}` rows, or from the pieces of a plain text.

    Raises:
        QuantizeError: the file is not UTF-8, a line is not JSON, or there is nothing to read.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise QuantizeError(f"{path} cannot be read: {error}") from None
    if path.suffix in (".jsonl", ".ndjson"):
        return from_rows(tokenizer, _json_lines(path, content), samples, tokens)
    ids = list(tokenizer(content, add_special_tokens=False)["input_ids"])
    pieces = [ids[begin : begin + tokens] for begin in range(0, len(ids), tokens)][:samples]
    if len(ids) < _SHORTEST:
        raise QuantizeError(f"{path}: less than {_SHORTEST} tokens of text")
    return [piece for piece in pieces if len(piece) >= _SHORTEST]


def _json_lines(path: Path, content: str) -> Iterator[object]:
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError:
                raise QuantizeError(f"{path}: line {number} is not JSON") from None


def from_hub(tokenizer: Any, dataset: str, samples: int, tokens: int) -> list[list[int]]:
    """Return texts from the `train` split of a Hub data set, streamed.

    Raises:
        QuantizeError: the data set cannot be had, or its rows hold no text.
    """
    from datasets import load_dataset

    try:
        rows = load_dataset(dataset, split="train", streaming=True)
    except Exception as error:  # the library raises whatever its readers raise
        reason = str(error).strip().splitlines()
        raise QuantizeError(f"AWQ_CALIB_DATASET={dataset}: {reason[0] if reason else error!r}") from None
    return from_rows(tokenizer, rows, samples, tokens)

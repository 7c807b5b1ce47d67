"""Tokenizers of large model families, made in memory: splitting, control tokens and chat templates."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from inference.engines.tokenizer import CHATML_TEMPLATE
from tests.fakes.engine import tiny_tokenizer

_LINES = (
    "You are Anna, calm and kind. Hello there, how are you today? I am fine, thank you for asking.",
    "system user assistant model INST [INST] [/INST] <<SYS>> User: Assistant: answer question weather",
    "Well, well, let us talk about the weather. The quick brown fox jumps over the lazy dog.",
)

LLAMA3_TEMPLATE = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# No system role; the user and assistant take turns or the template raises.
INST_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
# The system prompt goes into the first user message.
LLAMA2_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{% set content = system + message['content'] if loop.index0 == 0 else message['content'] %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content + ' [/INST]' }}"
    "{% else %}{{ ' ' + content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# The system prompt goes into the last user message.
MISTRAL3_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}{{ bos_token }}{% for message in rest %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{% if message['role'] == 'user' %}{% if loop.last and system is defined %}"
    "{{ '[INST] ' + system + '\n\n' + message['content'] + '[/INST]' }}{% else %}"
    "{{ '[INST] ' + message['content'] + '[/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    "{% endif %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN_TEMPLATE = CHATML_TEMPLATE.replace(
    "{{ '<|im_start|>assistant\n' }}",
    "{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}",
)


def _byte_level(
    specials: list[str], added: tuple[str, ...], template: str, bos: str | None, eos: str
) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    split = Regex(r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _LINES,
        trainers.BpeTrainer(vocab_size=450, special_tokens=specials, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    return _fast(tokenizer, template, bos, eos)


def _sentencepiece(
    specials: list[str], template: str, *, legacy: bool, prepend: bool = True
) -> PreTrainedTokenizerFast:
    """Create a BPE with `▁` for blanks and byte fallback. `legacy`: the normalizer puts the first blank."""
    alphabet = sorted({char for line in _LINES for char in line if char != " "} | {"▁"})
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        _LINES,
        trainers.BpeTrainer(vocab_size=220, initial_alphabet=alphabet, show_progress=False),
    )
    learned = trained.get_vocab()
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *specials]
    names += sorted(learned, key=learned.__getitem__)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    vocab = {text: number for number, text in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        scheme = "first" if prepend else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        if prepend
        else [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in ("<unk>", "<s>", "</s>", *specials)]
    )
    return _fast(tokenizer, template, "<s>", "</s>")


def _fast(tokenizer: Tokenizer, template: str, bos: str | None, eos: str) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False
    )
    fast.chat_template = template
    return fast


@cache
def family(name: str) -> PreTrainedTokenizerFast:
    """Return the tokenizer of one of :data:`FAMILIES`. Shared: do not change it."""
    match name:
        case "chatml":
            return tiny_tokenizer()
        case "llama-3":
            names = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id")
            specials = [f"<|{name}|>" for name in names]
            return _byte_level(specials, (), LLAMA3_TEMPLATE, "<|begin_of_text|>", "<|eot_id|>")
        case "qwen":
            specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
            added = ("<tool_call>", "</tool_call>", "<think>", "</think>")
            return _byte_level(specials, added, QWEN_TEMPLATE, None, "<|im_end|>")
        case "gemma":
            return _sentencepiece(["<start_of_turn>", "<end_of_turn>"], GEMMA_TEMPLATE, legacy=False, prepend=False)
        case "llama-2":
            return _sentencepiece([], LLAMA2_TEMPLATE, legacy=True)
        case "mistral":
            return _sentencepiece([], INST_TEMPLATE, legacy=True)
        case "mistral-v3":
            return _sentencepiece(["[INST]", "[/INST]"], MISTRAL3_TEMPLATE, legacy=False)
    raise KeyError(name)


FAMILIES = ("chatml", "llama-3", "qwen", "gemma", "llama-2", "mistral", "mistral-v3")

"""The fake engine and a tiny tokenizer that round-trips any text. tests/engine/test_contract.py checks both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from inference.engines.base import Delta, EngineDead, EngineRole, GenerationRequest
from inference.engines.tokenizer import CHATML_TEMPLATE

_LINES = (
    "Hello there, how are you today? I am fine, thank you for asking.",
    "system user assistant CHECK SCREEN: SCREEN CHECKED: what do you see on the screen?",
    '[{"name": "take_screenshot", "arguments": {}}] []',
    "Well, well, let us talk about the weather. Oh honey, the quick brown fox jumps over the lazy dog.",
)
BLOCK = 16
_HALF = "\N{REPLACEMENT CHARACTER}"

Reply = str | Sequence[int] | Callable[[GenerationRequest], "str | Sequence[int]"]


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of a few hundred tokens with ChatML's special tokens. Shared: do not change it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_LINES, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        bos_token="<|im_start|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHATML_TEMPLATE
    return fast


class FakeEngine:
    """An engine with scripted output.

    `reply` is the answer to every request: a text, a list of token ids, or a function of the request that returns
    either. `step` is the pace: None (at once, yielding to the loop between tokens), or an `asyncio.Semaphore` that is
    acquired before each token, so that a test releases tokens with `step.release()`. `first` (an `asyncio.Event`)
    delays the first token. `requests` and `aborted` (request ids) record calls, and :meth:`die` simulates a crash. A
    token whose bias is −100 or less is left out of the reply.
    """

    def __init__(
        self,
        role: EngineRole = EngineRole.CHAT,
        reply: Reply = "Hello there, how are you today?",
        *,
        model: str = "fake",
        max_model_len: int = 4096,
        step: asyncio.Semaphore | None = None,
        first: asyncio.Event | None = None,
        tokens_per_delta: int = 1,
    ) -> None:
        self.role = role
        self.model = model
        self.max_model_len = max_model_len
        self.tokenizer = tiny_tokenizer()
        self.reply = reply
        self.step = step
        self.first = first
        self.tokens_per_delta = tokens_per_delta
        self.requests: list[GenerationRequest] = []
        self.finished: list[str] = []
        self.aborted: list[str] = []
        self.bound = 0
        self.stopped = False
        self.registry: Any = None
        self._running: set[str] = set()
        self._prompts: list[tuple[str | None, tuple[int, ...]]] = []
        self._dead = asyncio.Event()
        self._activity = asyncio.Condition()

    @property
    def alive(self) -> bool:
        return not self._dead.is_set()

    def die(self) -> None:
        """Simulate a killed engine process: running streams and later requests raise."""
        self._dead.set()

    async def bind(self) -> None:
        """Do the loop-bound part of a start."""
        self.bound += 1

    def shutdown(self, timeout: float) -> None:
        """End the engine; a real engine blocks here."""
        self.stopped = True
        self._dead.set()

    def launch_info(self) -> Mapping[str, Any]:
        return {"quantization": None, "dtype": "float32", "kv_dtype": "auto"}

    def stats(self) -> Mapping[str, Any]:
        return {"running": len(self._running), "waiting": 0, "kv_usage": 0.0, "prefix_hit_rate": 0.0}

    async def wait_for_requests(self, count: int) -> None:
        """Wait until `count` requests have arrived in total."""
        async with self._activity:
            await self._activity.wait_for(lambda: len(self.requests) >= count)

    async def wait_idle(self) -> None:
        """Wait until no request runs."""
        async with self._activity:
            await self._activity.wait_for(lambda: not self._running)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        self._check(request)
        prompt = tuple(request.prompt_ids)
        salt = request.cache_salt
        cached = max((_shared(prompt, seen) for other, seen in self._prompts if other == salt), default=0)
        self._prompts.append((salt, prompt))
        self.requests.append(request)
        self._running.add(request.request_id)
        await self._notify()
        done = False
        try:
            async for text, ids, reason in self._stream(request):
                done = reason is not None
                likely = [{token: 0.0} for token in ids] if request.want_logprobs else []
                yield Delta(text, ids, reason, prompt_tokens=len(prompt), cached_tokens=cached, logprobs=likely)
        finally:
            self._running.discard(request.request_id)
            (self.finished if done else self.aborted).append(request.request_id)
            await self._notify()

    def _check(self, request: GenerationRequest) -> None:
        if not self.alive:
            raise EngineDead(f"the {self.role} engine is gone")
        if not request.prompt_ids:
            raise ValueError("the prompt is empty")
        if len(request.logit_bias) > 1024:
            raise ValueError(f"{len(request.logit_bias)} token biases; an engine takes 1024")
        if len(request.prompt_ids) >= self.max_model_len:
            raise ValueError(f"the prompt has {len(request.prompt_ids)} tokens; {self.max_model_len} fit")

    def _tokens(self, request: GenerationRequest) -> tuple[list[int], str]:
        reply = self.reply(request) if callable(self.reply) else self.reply
        if request.json_schema is not None and not callable(self.reply):
            reply = "[]"
        ids = self.tokenizer.encode(reply, add_special_tokens=False) if isinstance(reply, str) else list(reply)
        ids = [token for token in ids if request.logit_bias.get(token, 0.0) > -100]
        room = min(request.max_tokens, self.max_model_len - len(request.prompt_ids))
        return (ids[:room], "length") if len(ids) >= room else (ids, "stop")

    async def _stream(self, request: GenerationRequest) -> AsyncGenerator[tuple[str, list[int], str | None], None]:
        ids, reason = self._tokens(request)
        if self.first is not None:
            await self._or_death(self.first.wait())
        half = _half_character(self.tokenizer, request.prompt_ids)
        ids, said = [*half, *ids], len(half)
        while said < len(ids):
            if self.step is not None:
                await self._or_death(self.step.acquire())
            else:
                await asyncio.sleep(0)
            if not self.alive:
                raise EngineDead(f"the {self.role} engine died")
            until = min(said + self.tokens_per_delta, len(ids))
            last = until == len(ids) and reason == "length"
            yield self._text(ids, said, until), ids[said:until], reason if last else None
            said = until
        if reason == "stop":
            yield "", [], reason

    def _text(self, ids: list[int], start: int, end: int) -> str:
        """Return the text that `ids[start:end]` adds; half a character is held back, as a detokenizer does."""
        before, after = (str(self.tokenizer.decode(ids[:at], skip_special_tokens=True)) for at in (start, end))
        return after.rstrip(_HALF)[len(before.rstrip(_HALF)) :]

    async def _or_death(self, waiting: Any) -> None:
        """Wait, but not beyond the engine's death."""
        tasks = [asyncio.ensure_future(waiting), asyncio.ensure_future(self._dead.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        if not self.alive:
            raise EngineDead(f"the {self.role} engine died")

    async def _notify(self) -> None:
        async with self._activity:
            self._activity.notify_all()


def _half_character(tokenizer: PreTrainedTokenizerFast, prompt_ids: Sequence[int]) -> list[int]:
    """Return the tokens of half a character at the prompt's end; generated tokens may complete it."""
    for count in range(4):
        if not str(tokenizer.decode(list(prompt_ids[: len(prompt_ids) - count])[-4:])).endswith(_HALF):
            return list(prompt_ids[len(prompt_ids) - count :])
    return []


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Count tokens of the common prefix that a block cache would provide; never the whole prompt."""
    same = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        same += 1
    return min(same, len(one) - 1) // BLOCK * BLOCK

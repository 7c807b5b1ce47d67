"""The engine protocol: one request in, deltas out. Plain Python without vLLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from inference.engines.sampling import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Lower runs first. A live turn precedes every warm-up; among live turns the nearest deadline is first (deadlines.py).
PRIORITY_LIVE = 0
PRIORITY_WARM = 10
LIKELY_TOKENS = 20  # whose probabilities a tool decision's score is made of; vLLM's max_logprobs


class EngineRole(StrEnum):
    """The task of an engine: ``chat`` writes replies, ``tool`` decides about tool calls."""

    CHAT = "chat"
    TOOL = "tool"


class EngineState(StrEnum):
    """The lifecycle state of an engine. A dead engine is never revived: another one is built."""

    STARTING = "starting"
    READY = "ready"
    DEAD = "dead"
    STOPPED = "stopped"


class EngineDead(RuntimeError):
    """The engine's process died, or the engine is not ready. Sessions answer ``engine_unavailable``."""


class SchemaRefused(ValueError):
    """The engine cannot follow the request's JSON schema."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request to an engine.

    Attributes:
        request_id: unique in this process.
        prompt_ids: token ids of the engine's own tokenizer, special tokens included; shape (prompt tokens,).
        max_tokens: most tokens to generate.
        sampling: how each token is drawn.
        logit_bias: token id → additive bias, at every step of the request; at most 1024 entries.
        json_schema: JSON text of a schema that the output must follow; None for free text.
        priority: :data:`PRIORITY_LIVE` or :data:`PRIORITY_WARM`.
        cache_salt: isolates the prefix cache. Requests share cached prompt tokens only where their salts are equal;
            None is a salt of its own. vLLM hashes the salt into the first block of a prompt
            (vllm/v1/core/kv_cache_utils.py, generate_block_hash_extra_keys).
        affinity: requests with the same key go to the same replica of a data-parallel engine, which holds their prefix;
            None goes to the least loaded one.
        want_logprobs: how many of the most likely tokens are reported at each step; 0 reports none. vLLM takes up to
            20 (``max_logprobs``).
    """

    request_id: str
    prompt_ids: Sequence[int]
    max_tokens: int
    sampling: Sampling
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    json_schema: str | None = None
    priority: int = PRIORITY_LIVE
    cache_salt: str | None = None
    want_logprobs: int = 0
    affinity: str | None = None


@dataclass(slots=True)
class Delta:
    """The text and token ids that an engine generated since the last delta.

    Attributes:
        text: new text; empty while a character is incomplete.
        token_ids: new token ids, shape (new tokens,). The end token of a reply is not among them and not in ``text``.
        finish_reason: None until the last delta, then ``stop``, ``length``, ``abort`` or ``error``.
        prompt_tokens: length of the prompt.
        cached_tokens: prompt tokens that came from the prefix cache.
        logprobs: for each generated token, end token included, token id → natural logarithm of its probability: the
            ``want_logprobs`` most likely tokens and the drawn one. Empty where none were asked for.
    """

    text: str
    token_ids: Sequence[int]
    finish_reason: str | None
    prompt_tokens: int
    cached_tokens: int
    logprobs: Sequence[Mapping[int, float]] = ()


class Engine(Protocol):
    """An engine that is ready. All calls belong to the serving loop."""

    role: EngineRole

    @property
    def model(self) -> str:
        """Hub id or folder."""
        ...

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and reply together."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own tokenizer."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Stream the output of one request.

        Closing the generator (``contextlib.aclosing``) or cancelling its reader aborts the request after the step that
        is running.

        Raises:
            EngineDead: the engine died, before or while streaming.
            ValueError: the engine refuses the request: an empty or too long prompt, too many biases.
            RuntimeError: the engine lost the request.
        """
        ...

    @property
    def alive(self) -> bool:
        """False once the engine has died. An attribute read, no call into the engine."""
        ...

    def stats(self) -> Mapping[str, Any]:
        """Return numbers for status and dashboard.

        Returns:
            ``running`` and ``waiting`` (requests), ``kv_usage`` and ``prefix_hit_rate`` (fractions from 0 to 1), and
            where the engine counts them ``generated`` (tokens).
        """
        ...

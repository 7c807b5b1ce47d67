"""What the rest of the server knows of an inference engine: one protocol, one request, one delta. Plain Python."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from inference.engines.sampling import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Lower runs first. A live turn goes before any warm-up; among live turns the engine decides.
PRIORITY_LIVE = 0
PRIORITY_WARM = 10


class EngineRole(StrEnum):
    """What an engine is for."""

    CHAT = "chat"
    TOOL = "tool"


class EngineState(StrEnum):
    """Where an engine is in its life. A dead engine is never revived: another one is built."""

    STARTING = "starting"
    READY = "ready"
    DEAD = "dead"
    STOPPED = "stopped"


class EngineDead(RuntimeError):
    """The engine is gone or was never there. Sessions answer ``engine_unavailable``."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request to an engine.

    ``request_id`` is unique in the process. ``prompt_ids`` are token ids of the engine's own tokenizer, special tokens
    included. ``logit_bias`` maps token ids to additive biases for every step of the request. ``json_schema`` (a JSON
    text) holds the output to that schema.
    """

    request_id: str
    prompt_ids: Sequence[int]
    max_tokens: int
    sampling: Sampling
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    json_schema: str | None = None
    priority: int = PRIORITY_LIVE


@dataclass(slots=True)
class Delta:
    """What came since the last delta: text and the ids it was made from (either may be empty).

    ``finish_reason`` is None until the last delta: ``stop``, ``length``, ``abort`` or ``error``. An end token is not
    among ``token_ids`` and not in ``text``. ``cached_tokens`` counts prompt tokens that the prefix cache gave.
    """

    text: str
    token_ids: Sequence[int]
    finish_reason: str | None
    prompt_tokens: int
    cached_tokens: int


class Engine(Protocol):
    """An engine that is ready. All calls belong to the serving loop."""

    role: EngineRole
    model: str
    max_model_len: int
    tokenizer: PreTrainedTokenizerBase

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Stream a reply. Closing the generator (``contextlib.aclosing``) or cancelling its reader aborts the request
        in the engine at once. Raises :class:`EngineDead` when the engine is gone, before or while streaming."""
        ...

    @property
    def alive(self) -> bool:
        """False once the engine has died; costs an attribute read."""
        ...

    def stats(self) -> Mapping[str, Any]:
        """Numbers for status and dashboard: ``running``, ``waiting`` (requests), ``kv_usage`` (0–1),
        ``prefix_hit_rate`` (0–1) and whatever else the engine knows."""
        ...

"""Data parallelism: one role served by several independent engines (replicas), each with all of the model.

A session stays on the replica that holds its prefix in the cache; a new session goes to the replica with the fewest
sessions and requests. A replica that dies ends the requests that run on it, and its sessions move to the others.

vLLM's own data parallelism inside one ``AsyncLLM`` has one client for all replicas: a replica that dies marks the whole
client as errored (vllm/v1/engine/core_client.py, ``BackgroundResources.engine_dead``).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from inference.engines.base import Delta, Engine, EngineDead, EngineRole, GenerationRequest
from inference.engines.status import combined

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REMEMBERED_SESSIONS = 4096


class ReplicaRouter:
    """Routes requests to replicas. It is an :class:`inference.engines.base.Engine` itself.

    Args:
        role: the role of all replicas.
        replicas: returns the current engine of each replica; None for one that does not answer.
    """

    def __init__(self, role: EngineRole, replicas: Callable[[], Sequence[Engine | None]]) -> None:
        self.role = role
        self._replicas = replicas
        self._session_replica: OrderedDict[str, int] = OrderedDict()  # the most recently used last
        self._open: Counter[int] = Counter()  # requests

    @property
    def model(self) -> str:
        """See :class:`inference.engines.base.Engine`."""
        return self._any().model

    @property
    def max_model_len(self) -> int:
        """See :class:`inference.engines.base.Engine`."""
        return self._any().max_model_len

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See :class:`inference.engines.base.Engine`."""
        return self._any().tokenizer

    @property
    def alive(self) -> bool:
        """Whether any replica answers."""
        return any(self._alive())

    def stats(self) -> Mapping[str, Any]:
        """See :meth:`inference.engines.base.Engine.stats`; summed over the replicas."""
        return combined([engine.stats() for engine in self._alive() if engine is not None]) or {}

    def replica_of(self, session: str) -> int | None:
        """Return the index of the replica on which a session's prefix was computed last; None for a new session."""
        return self._session_replica.get(session)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """See :meth:`inference.engines.base.Engine.generate`.

        A request without ``affinity`` goes to the least loaded replica.
        """
        index = self._choose(request.affinity)
        engine = self._replicas()[index]
        assert engine is not None
        self._open[index] += 1
        try:
            async with aclosing(engine.generate(request)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self._open[index] -= 1

    def each(self) -> list[Engine]:
        """Return the replicas that answer, for work that every replica needs."""
        return [engine for engine in self._alive() if engine is not None]

    def _choose(self, session: str | None) -> int:
        alive = self._alive()
        known = self._session_replica.get(session) if session is not None else None
        if known is None or alive[known] is None:
            known = self._least_loaded(alive)
        if session is not None:
            self._session_replica[session] = known
            self._session_replica.move_to_end(session)
            if len(self._session_replica) > REMEMBERED_SESSIONS:
                self._session_replica.popitem(last=False)
        return known

    def _least_loaded(self, alive: Sequence[Engine | None]) -> int:
        candidates = [index for index, engine in enumerate(alive) if engine is not None]
        if not candidates:
            raise EngineDead(f"no replica of the {self.role} engine answers")
        sessions = Counter(self._session_replica.values())
        return min(candidates, key=lambda index: (self._open[index], sessions[index]))

    def _alive(self) -> list[Engine | None]:
        return [engine if engine is not None and engine.alive else None for engine in self._replicas()]

    def _any(self) -> Engine:
        engine = next((engine for engine in self._replicas() if engine is not None), None)
        if engine is None:
            raise EngineDead(f"no replica of the {self.role} engine answers")
        return engine

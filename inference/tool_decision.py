"""The tool decision of one turn by a generating model: read to its telling token, then as far as the call is open."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from inference.engines.base import LIKELY_TOKENS, Delta, Engine, EngineDead, GenerationRequest
from inference.engines.sampling import GREEDY
from inference.prompting.tool_definitions import CallGrammar
from inference.tool_call import decision, parse_calls
from inference.tool_score import telling_probability

logger = logging.getLogger(__name__)

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """Limits of a decision.

    Args:
        max_out: output tokens; a longer call is cut and counts as no.
        timeout_s: seconds for the whole decision; after them the decision is no.
        hard_timeout_s: seconds to the telling token; after them the decision is no. None: only ``timeout_s`` holds.
        kind: ``auto``, ``classifier`` or ``model``.
        threshold: probability of yes from which a tool is called; None: the classifier's own, 0.5 for a model.
    """

    max_out: int = 64
    timeout_s: float = 10.0
    hard_timeout_s: float | None = 0.3
    kind: str = "auto"
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A question to an engine.

    Args:
        prompt_ids: the whole prompt.
        grammar: the calls that the output may contain.
        threshold: probability of yes from which a tool is called.
        wanted: the decision is yes already; the engine only writes the call.
        affinity: the session's key for the replicas of an engine.
    """

    request_id: str
    prompt_ids: Sequence[int]
    grammar: CallGrammar
    cache_salt: str | None = None
    threshold: float = DEFAULT_THRESHOLD
    wanted: bool = False
    affinity: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The result. Without ``calls`` the decision is no. ``score`` is the probability of yes, None where unknown."""

    calls: tuple[dict[str, Any], ...] = ()
    score: float | None = None


@dataclass(slots=True)
class DecisionProgress:
    """The state of a running decision: its tokens so far, also where it is cancelled, and the event of a yes."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    said_yes: asyncio.Event = field(default_factory=asyncio.Event)


async def decide(engine: Engine, request: ToolRequest, policy: ToolPolicy, progress: DecisionProgress) -> Decision:
    """Ask a model whether the user wants a tool.

    ``progress.said_yes`` is set at the telling token of a yes, while the engine still writes the call. The request is
    aborted as soon as the grammar determines the rest of the call. A decision that fails, comes late or is malformed is
    a no with a log line. Cancelling this coroutine aborts the request.

    Args:
        engine: the tool engine.
        request: the question.
        policy: limits.
        progress: receives token counts and the early yes.
    """
    reading = _Reading(engine, request, policy, progress)
    patience_s = policy.timeout_s if policy.hard_timeout_s is None else min(policy.timeout_s, policy.hard_timeout_s)
    try:
        async with asyncio.timeout(policy.timeout_s if request.wanted else patience_s) as deadline:
            return await reading.run(deadline)
    except TimeoutError:
        logger.info("%s: tool decision too late, counted as no", request.request_id)
    except (EngineDead, RuntimeError, ValueError) as error:
        logger.error("%s: tool engine failed, decision counted as no: %s", request.request_id, error)
    return Decision(score=reading.score)


class _Reading:
    """The output of one decision, while it is read."""

    def __init__(self, engine: Engine, request: ToolRequest, policy: ToolPolicy, progress: DecisionProgress) -> None:
        self.score: float | None = None
        self._engine = engine
        self._request = request
        self._policy = policy
        self._progress = progress
        self._started = time.perf_counter()
        self._text = ""

    async def run(self, deadline: asyncio.Timeout) -> Decision:
        """Read the decision, then the call. ``deadline`` is moved to the whole decision's at the telling token."""
        grammar, progress = self._request.grammar, self._progress
        if not self._request.wanted:
            async with aclosing(self._generate(grammar.schema)) as deltas:
                async for delta in deltas:
                    if not progress.said_yes.is_set():
                        wanted = self._read_decision(delta)
                        if wanted is None:
                            continue
                        if not wanted:
                            return Decision(score=self.score)
                        self._say_yes(deadline)
                        if not decision(self._text):  # the threshold is below the model's own: its output is a no
                            break
                    else:
                        self._append(delta)
                    calls = grammar.settled(self._text)
                    if calls is not None:
                        return Decision(tuple(calls), self.score)
                else:
                    said = progress.said_yes.is_set()
                    return Decision(tuple(parse_calls(self._text)) if said else (), self.score)
        self._say_yes(deadline)
        return Decision(tuple(await self._write_call()), self.score)

    def _say_yes(self, deadline: asyncio.Timeout) -> None:
        self._progress.said_yes.set()
        deadline.reschedule(deadline_at(self._started + self._policy.timeout_s))

    def _append(self, delta: Delta) -> None:
        self._text += delta.text
        self._progress.completion_tokens += len(delta.token_ids)

    def _read_decision(self, delta: Delta) -> bool | None:
        """The decision after this delta; None while it is open."""
        before = self._text
        self._append(delta)
        spoken = decision(self._text)
        if spoken is None:
            return None
        self.score = telling_probability(before, delta, self._engine.tokenizer)
        return spoken if self.score is None else self.score >= self._request.threshold

    async def _write_call(self) -> list[dict[str, Any]]:
        """A call that is decided without the model having begun it."""
        grammar = self._request.grammar
        forced = grammar.settled("[{")
        if forced is not None:
            return forced
        self._text = ""
        async with aclosing(self._generate(grammar.schema_of_yes, ".call")) as deltas:
            async for delta in deltas:
                self._append(delta)
                calls = grammar.settled(self._text)
                if calls is not None:
                    return calls
        return parse_calls(self._text)

    def _generate(self, schema: str, suffix: str = "") -> AsyncGenerator[Delta, None]:
        self._progress.prompt_tokens += len(self._request.prompt_ids)
        return self._engine.generate(
            GenerationRequest(
                request_id=self._request.request_id + suffix,
                prompt_ids=self._request.prompt_ids,
                max_tokens=self._policy.max_out,
                sampling=GREEDY,
                json_schema=schema,
                cache_salt=self._request.cache_salt,
                affinity=self._request.affinity,
                want_logprobs=0 if suffix else LIKELY_TOKENS,
            )
        )


def deadline_at(perf_counter_s: float) -> float:
    """Convert a moment to the running loop's clock.

    Args:
        perf_counter_s: seconds of `time.perf_counter`.

    Returns:
        Seconds of the loop's clock.
    """
    return asyncio.get_running_loop().time() + perf_counter_s - time.perf_counter()

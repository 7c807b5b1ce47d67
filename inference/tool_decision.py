"""The tool decision of one turn: one request to the tool engine, read to its first telling token, then to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from inference.engines.base import Engine, EngineDead, GenerationRequest
from inference.engines.sampling import GREEDY
from inference.prompting.tool_prompt import schema
from inference.tool_call import decision, parse_calls

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """Limits of a decision.

    Args:
        max_out: output tokens; a longer call is cut and counts as no.
        timeout_s: seconds for the whole decision; after them the decision is no.
        hard_timeout_s: seconds to the telling token; after them the decision is no. None: only ``timeout_s`` holds.
    """

    max_out: int = 64
    timeout_s: float = 10.0
    hard_timeout_s: float | None = 0.3


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """The question to the tool engine: prompt ids, and the tool prompt whose tools the output may name."""

    request_id: str
    prompt_ids: Sequence[int]
    tool_prompt: str
    cache_salt: str | None = None


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
    """Ask whether the user wants a tool.

    ``progress.said_yes`` is set at the telling token of a yes, while the engine still writes the call. A decision that
    fails, comes late or is malformed is a no with a log line. Cancelling this coroutine aborts the request.

    Args:
        engine: the tool engine.
        request: the question.
        policy: limits.
        progress: receives token counts and the early yes.
    """
    started = time.perf_counter()
    patience_s = policy.timeout_s if policy.hard_timeout_s is None else min(policy.timeout_s, policy.hard_timeout_s)
    generation = GenerationRequest(
        request_id=request.request_id,
        prompt_ids=request.prompt_ids,
        max_tokens=policy.max_out,
        sampling=GREEDY,
        json_schema=schema(request.tool_prompt),
        cache_salt=request.cache_salt,
    )
    progress.prompt_tokens = len(request.prompt_ids)
    text = ""
    try:
        async with asyncio.timeout(patience_s) as deadline, aclosing(engine.generate(generation)) as deltas:
            async for delta in deltas:
                progress.completion_tokens += len(delta.token_ids)
                text += delta.text
                if progress.said_yes.is_set():
                    continue
                wanted = decision(text)
                if wanted is False:
                    return Decision()
                if wanted:
                    progress.said_yes.set()
                    deadline.reschedule(deadline_at(started + policy.timeout_s))
    except TimeoutError:
        logger.info("%s: tool decision too late, counted as no", request.request_id)
        return Decision()
    except (EngineDead, RuntimeError, ValueError) as error:
        logger.error("%s: tool engine failed, decision counted as no: %s", request.request_id, error)
        return Decision()
    return Decision(tuple(parse_calls(text)))


def deadline_at(perf_counter_s: float) -> float:
    """Convert a moment to the running loop's clock.

    Args:
        perf_counter_s: seconds of `time.perf_counter`.

    Returns:
        Seconds of the loop's clock.
    """
    return asyncio.get_running_loop().time() + perf_counter_s - time.perf_counter()

"""The tool decision of one turn by the classifier. A model only writes the arguments of a call that needs some."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from inference.engines.base import Engine
from inference.tool_classifier.service import ToolClassifier
from inference.tool_decision import Decision, DecisionProgress, ToolPolicy, ToolRequest, decide

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClassifierRequest:
    """A question to the classifier.

    Args:
        text: the line to decide on.
        earlier: the lines before it, oldest first.
        tools: name of each tool in force → whether its calls have arguments.
        threshold: probability of yes from which a tool is called; None: the head's.
        engine: writes arguments; None where no engine answers.
        arguments_request: the question that makes ``engine`` write the call of a tool.
    """

    classifier: ToolClassifier
    text: str
    earlier: Sequence[str]
    tools: dict[str, bool]
    threshold: float | None
    engine: Engine | None
    arguments_request: Callable[[str], ToolRequest]


async def classify(
    request: ClassifierRequest, policy: ToolPolicy, progress: DecisionProgress
) -> asyncio.Future[Decision]:
    """Decide whether the user wants a tool.

    Returns:
        The decision: done, except where a model still writes the arguments of a call; ``progress.said_yes`` is set
        then. Arguments that do not come whole in time make the decision a no.
    """
    choice = await request.classifier.choose(request.text, request.earlier, request.tools.keys(), request.threshold)
    if choice.tool is None:
        return _done(Decision(score=choice.score))
    if not request.tools[choice.tool]:
        return _done(Decision(({"name": choice.tool, "arguments": {}},), choice.score))
    if request.engine is None:
        logger.error("no engine can write the arguments of %s, decision counted as no", choice.tool)
        return _done(Decision(score=choice.score))
    progress.said_yes.set()
    arguments = decide(request.engine, request.arguments_request(choice.tool), policy, progress)
    return asyncio.create_task(_with_score(arguments, choice.score))


async def _with_score(arguments: Awaitable[Decision], score: float) -> Decision:
    return Decision((await arguments).calls, score)


def _done(decision: Decision) -> asyncio.Future[Decision]:
    future: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
    future.set_result(decision)
    return future

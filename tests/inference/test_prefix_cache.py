"""A record that was trimmed is computed before the next turn asks for it."""

from __future__ import annotations

from inference.engines.base import PRIORITY_WARM, EngineRole
from inference.prompting.prompt_limits import PromptLimits
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import Line, make_serving


async def test_what_is_left_after_a_trim_is_primed_in_both_engines() -> None:
    chat, tool = FakeEngine(), FakeEngine(EngineRole.TOOL, "[]")
    line = Line(await make_serving(chat, tool, limits=PromptLimits(history=300, tool_history=300)))
    for number in range(60):
        await line.turn(user_utterance=f"The quick brown fox, number {number}")
        if any(request.priority == PRIORITY_WARM for request in tool.requests):  # the tool's is the second
            break
    await line.turn(user_utterance="And then?")
    for engine in (chat, tool):
        (primed,) = [request for request in engine.requests if request.priority == PRIORITY_WARM]
        asked = engine.requests[-1]
        assert list(asked.prompt_ids)[: len(primed.prompt_ids)] == list(primed.prompt_ids)
        assert len(primed.prompt_ids) < len(asked.prompt_ids)


async def test_nothing_is_primed_while_the_record_only_grows() -> None:
    chat = FakeEngine()
    line = Line(await make_serving(chat, None))
    for _ in range(4):
        await line.turn()
    assert all(request.priority != PRIORITY_WARM for request in chat.requests)

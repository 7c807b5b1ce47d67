"""Engines and callers for the tests of sessions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from accounts.callers import Caller, Limits
from inference.engines.base import GenerationRequest
from inference.tool_decision import ToolPolicy
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from tests.fakes.serving import FREE, UNLIMITED

SAID = "Hello there, how are you today?"
PATIENT = TurnPolicy(tool=ToolPolicy(hard_timeout_s=None))


def text_of(request: GenerationRequest) -> str:
    return str(tiny_tokenizer().decode(list(request.prompt_ids)))


def prompts(engine: FakeEngine) -> list[str]:
    return [text_of(request) for request in engine.requests]


def limited(**limits: Any) -> Caller:
    own = {"messages": FREE, "cancels": FREE, "persona_updates": FREE, **limits}
    return replace(UNLIMITED, limits=Limits(**own))


def held(tokens: int = 0, **options: Any) -> FakeEngine:
    """A chat engine that says this many tokens and waits."""
    return FakeEngine(reply=SAID, step=asyncio.Semaphore(tokens), **options)


def let_go(engine: FakeEngine, tokens: int = 1000) -> None:
    assert engine.step is not None
    for _ in range(tokens):
        engine.step.release()


async def settled() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


def starts_with(longer: Any, shorter: Any) -> bool:
    return list(longer)[: len(shorter)] == list(shorter)

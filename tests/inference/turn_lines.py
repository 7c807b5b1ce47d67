"""Engines and policies for the tests of turns."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from inference.engines.base import EngineRole, GenerationRequest
from inference.tool_decision import ToolPolicy
from inference.turn_plan import TurnPolicy
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from tests.fakes.serving import Line

SAID = "Hello there, how are you today?"
SEEN = "what do you see on the screen?"
CALL = [{"name": "take_screenshot", "arguments": {}}]
NO, YES = "[]", json.dumps(CALL)
ANY_TOOL = "Call a tool or none."  # names none, so that no call is forced
PATIENT = TurnPolicy(tool=ToolPolicy(hard_timeout_s=None))
SEQUENTIAL = TurnPolicy(concurrent=False, tool=ToolPolicy(hard_timeout_s=None))
BOTH = pytest.mark.parametrize("policy", [PATIENT, SEQUENTIAL], ids=["concurrent", "sequential"])


def tool_engine(reply: str = NO, **options: Any) -> FakeEngine:
    return FakeEngine(EngineRole.TOOL, lambda _: reply, **options)


def by_prefix(request: GenerationRequest) -> str:
    """A chat engine that knows whether it is asked to look."""
    return SEEN if "CHECK SCREEN: hi" in text_of(request) else SAID


def text_of(request: GenerationRequest) -> str:
    return str(tiny_tokenizer().decode(list(request.prompt_ids)))


def of_type(line: Line, kind: str) -> list[dict[str, Any]]:
    return [frame for frame in line.frames if frame["type"] == kind]


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(60):
        await asyncio.sleep(0)

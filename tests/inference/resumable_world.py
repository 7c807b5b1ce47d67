"""A process whose sessions can be resumed, with a paced engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest_asyncio

from accounts.callers import Caller
from inference.kept_sessions import KeptSessions
from inference.resumable_sessions import ResumableSessions
from inference.serving_context import ServingContext
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import UNLIMITED, Line, make_serving

SAID = "Hello there, how are you today? 😀 I am fine, thank you for asking."
OTHER = replace(UNLIMITED, prefix="other")
AGAIN = {"type": "start", "session_id": "s1", "user_utterance": "and now?"}


@dataclass
class World:
    """One process with a paced engine. `grace_s` is long: a test calls what the timer would."""

    serving: ServingContext
    chat: FakeEngine
    resumable: ResumableSessions

    @asynccontextmanager
    async def line(self, caller: Caller = UNLIMITED) -> AsyncIterator[Line]:
        line = Line(self.serving, caller, resumable=self.resumable)
        line.session.open()
        try:
            yield line
        finally:
            await line.session.aclose()

    async def lost(self, tokens: int | None, caller: Caller = UNLIMITED, **start: Any) -> str:
        """A reply whose connection is lost after some tokens; None: after the end. Returns what the client got."""
        self.chat.step = None if tokens is None else asyncio.Semaphore(tokens)
        async with self.line(caller) as line:
            await line.say({"type": "start", "session_id": "s1", "persona": "anna", "user_utterance": "hi", **start})
            if tokens is None:
                await line.until_done()
            else:
                await line.until(lambda frames: sum(frame["type"] == "token" for frame in frames) >= tokens)
            return line.text()

    def said(self, caller: Caller = UNLIMITED) -> list[str]:
        state = self.serving.kept.find(caller, "s1")
        return state.conversation.recent_lines(10) if state is not None and state.conversation is not None else []


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    chat = FakeEngine(reply=SAID, step=asyncio.Semaphore(0))
    serving = await make_serving(chat, None)
    serving.kept = KeptSessions(300.0)
    world = World(serving, chat, ResumableSessions(100.0))
    yield world
    await world.resumable.aclose()
    await serving.engines.aclose()


def resume(received: int, turn: int = 1, **fields: Any) -> dict[str, Any]:
    return {"type": "resume", "session_id": "s1", "turn": turn, "received": received, **fields}

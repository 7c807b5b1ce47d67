from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inference import first_turns
from inference.engines.base import PRIORITY_WARM, EngineRole
from inference.engines.sampling import GREEDY, Sampling
from inference.engines.startup_requests import run_startup_requests
from inference.first_turns import prepare_first_turns
from inference.tool_classifier.features import DIMENSIONS
from inference.tool_classifier.head import Head
from inference.tool_classifier.service import ToolClassifier
from personas.tool_snapshot import ToolHeadSnapshot
from tests.fakes.engine import FakeEngine, tiny_tokenizer
from tests.fakes.serving import ANNA, MAX, UNLIMITED, catalogue, talking


async def test_a_first_turn_encodes_no_stored_prompt() -> None:
    tools = replace(MAX, tool_prompt='Call {"name": "look", "arguments": {}} where asked.')
    long = replace(
        MAX, slug="long", personality="wordy", chat_prompt="word " * 5000
    )  # one that cannot be used does not stop the others
    chat, tool = FakeEngine(), FakeEngine(EngineRole.TOOL, "[]")
    async with talking(chat, tool, catalogue=catalogue(ANNA, long, tools)) as line:
        await prepare_first_turns(line.serving, None)
        assert not chat.requests
        encoder = line.serving.resolver.encoder
        caches = (encoder._chat_ids, encoder._tool_ids)
        misses = [cache.cache_info().misses for cache in caches]
        assert min(misses) > 0
        await line.turn()
        await line.turn(gender="male", personality="dry")
        assert [cache.cache_info().misses for cache in caches] == misses


async def test_the_prefixes_of_the_servers_own_key_are_computed() -> None:
    chat = FakeEngine()
    async with talking(chat) as line:
        await prepare_first_turns(line.serving, UNLIMITED)
        assert {request.priority for request in chat.requests} == {PRIORITY_WARM}
        texts = [tiny_tokenizer().decode(list(request.prompt_ids)) for request in chat.requests]
        assert [persona.chat_prompt in text for persona, text in zip((ANNA, MAX), texts, strict=True)] == [True, True]
        done = (await line.turn())[-1]
        assert done["usage"]["cached_tokens"] > 0


async def test_an_engine_that_hangs_or_dies_does_not_hold_up_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_turns, "PRIME_LIMIT_S", 0.02)
    chat = FakeEngine(first=asyncio.Event())
    async with talking(chat) as line:
        async with asyncio.timeout(10):
            await prepare_first_turns(line.serving, UNLIMITED)
        await chat.wait_idle()
        chat.die()
        await prepare_first_turns(line.serving, UNLIMITED)


async def test_a_start_samples_as_replies_do() -> None:
    chat, tool = FakeEngine(), FakeEngine(EngineRole.TOOL, "[]")
    for engine in (chat, tool):
        await run_startup_requests(engine, "one", lambda _engine: [[1, 2, 3]])
    assert [request.sampling for request in chat.requests if request.logit_bias] == [Sampling()]
    assert all(request.sampling == GREEDY for request in tool.requests)


@pytest.mark.parametrize("encoded", [False, True])
def test_a_head_decides_once_before_it_is_in_force(monkeypatch: pytest.MonkeyPatch, *, encoded: bool) -> None:
    encoder = _Encoder() if encoded else None
    decided: list[str] = []
    probabilities = Head.probabilities

    def counted(self: Head, text: str, *more: Any) -> Any:
        decided.append(text)
        return probabilities(self, text, *more)

    monkeypatch.setattr(Head, "probabilities", counted)
    head = Head(
        classes=("", "look"),
        weights=np.ones((DIMENSIONS, 2), np.float32),
        embedding_weights=np.ones((4 if encoded else 0, 2), np.float32),
        bias=np.zeros(2, np.float32),
        threshold=0.5,
        encoder=_Encoder.name if encoded else None,
    )
    classifier = ToolClassifier(encoder)
    assert classifier.prepare(ToolHeadSnapshot(1, head.to_bytes(), 0.5)) is not None
    assert len(decided) == 1
    assert encoder is None or encoder.calls == 1


class _Encoder:
    name = "some/encoder"

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls += 1
        return np.full((len(texts), 4), 0.5, np.float32)

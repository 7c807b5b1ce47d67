"""Fixtures of the tests of the engine service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from inference.engines.service import EngineService
from tests.fakes.engine_factory import CHAT, TOOL, Factory


@pytest.fixture
def factory() -> Iterator[Factory]:
    made = Factory()
    yield made
    made.hold.set()


@pytest.fixture
async def service(factory: Factory) -> AsyncIterator[EngineService]:
    made = EngineService([CHAT, TOOL], factory, backoff_s=0.01)
    yield made
    factory.hold.set()
    await made.aclose()

"""Puts the clients' folder on the path, because the clients run as scripts from there."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Protocol

import pytest

from tests.clients_suite.running import CLIENTS
from tests.clients_suite.scripted_server import Script, ScriptedServer, scripted

sys.path.insert(0, str(CLIENTS))


class Serve(Protocol):
    """Starts a scripted server that runs until the end of the test."""

    async def __call__(self, script: Script) -> ScriptedServer: ...


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A factory of scripted servers."""
    async with AsyncExitStack() as stack:

        async def start(script: Script) -> ScriptedServer:
            return await stack.enter_async_context(scripted(script))

        yield start

"""Servers with fake engines, in processes of their own, behind both ASGI servers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server import YapServer

COMMAND = (sys.executable, "-m", "tests.security.fake_server")
SERVERS = ("daphne", "uvicorn")

StartServer = Callable[..., YapServer]


def fake_server(folder: Path, **variables: str) -> YapServer:
    """A server with fake engines that has not been started. Its models are small local folders' names, never loaded."""
    return YapServer(folder, COMMAND, **variables)


@pytest.fixture(scope="session", params=SERVERS)
def edge_server(request: pytest.FixtureRequest, server_folder: Callable[[], Path]) -> Iterator[YapServer]:
    """One server of each kind for the whole run, with its default settings; a send may block for a second."""
    server = fake_server(server_folder(), SERVER=request.param, YAP_TEST_SEND_TIMEOUT="0.1")
    try:
        yield server.start(60)
    finally:
        server.stop()


@pytest.fixture
def start_fake(server_folder: Callable[[], Path]) -> Iterator[StartServer]:
    """Starts servers with the settings that a test names; ends them after the test."""
    made: list[YapServer] = []

    def start(**variables: str) -> YapServer:
        made.append(fake_server(server_folder(), **variables))
        return made[-1].start(60)

    yield start
    for server in made:
        server.stop()

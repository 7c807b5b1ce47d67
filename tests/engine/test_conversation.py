"""Whole conversations on the demo model."""

from __future__ import annotations

import pytest

from tests.server import YapServer
from tests.wsclient import client

pytestmark = pytest.mark.engine


async def test_a_turn(demo_server: YapServer) -> None:
    async with client(demo_server.ws_url, demo_server.api_key) as yap:
        turn = await yap.say("Hello, who are you?")
        print(demo_server.ready_after_s, turn.frames[:3], turn.frames[-2:], demo_server.engine_processes(), demo_server.processes())
        assert turn.kinds == ["ack", "toolcall", "token", "final", "done"]

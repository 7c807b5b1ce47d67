"""A client that talks through a balancer and goes on whatever happens to its connection."""

from __future__ import annotations

from collections.abc import Callable

from yapclient import Dialogue, Persona, Token, Turn
from yapclient.address import Server
from yapclient.backoff import Backoff

from tests.balancer import Balancer
from tests.server import YapServer

SAID = " ".join(f"word{number}" for number in range(30)) + " 😀 end."
QUICK = Backoff(attempts=40, first=0.02, longest=0.2, without_server=True)
ENVIRONMENT = {
    "YAP_TEST_REPLY": SAID, "YAP_TEST_PACE_S": "0.004", "WS_MAX_MESSAGES_PER_WINDOW": "0", "SESSION_KEEP_S": "60",
    "RESUME_GRACE_S": "30", "DEPLOY_MODELS": "chat", "CHAT_MAX_OUT": "400", "HISTORY_MAX_TOKENS": "3000",
    "CHAT_PROMPT_MAX_TOKENS": "500", "SECRET_KEY": "of-both-" + 50 * "x", "DRAIN_TIMEOUT_S": "30",
    "MAX_CONCURRENT_CONNECTIONS": "64",
}  # fmt: skip
ADA = Persona("female", "calm", "You are Ada.")


class Talker:
    """One client that talks. `texts` are the replies, `fallbacks` turns for which the server had no record."""

    def __init__(self, balancer: Balancer) -> None:
        server = Server.parse(f"ws://127.0.0.1:{balancer.port}/ws", YapServer.api_key)
        self.resumed = 0
        self.dialogue = Dialogue(server, ADA, backoff=QUICK, on_resume=self._resumed)
        self.texts: list[str] = []
        self.fallbacks = 0

    def _resumed(self, turn: Turn) -> None:
        self.resumed += 1

    async def say(self, text: str, on_token: Callable[[Turn], None] | None = None) -> None:
        turn = await self.dialogue.say(text)
        async for event in turn:
            if on_token is not None and isinstance(event, Token):
                on_token(turn)
        assert turn.final is not None
        assert turn.final.text == turn.text
        self.texts.append(turn.text)
        self.fallbacks += turn.has_history
        self.dialogue.keep(text, turn)

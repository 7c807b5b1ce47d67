"""Two servers on one PostgreSQL and one Redis, with clients that talk, and the counts that must hold afterwards."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import redis
from websockets.exceptions import ConnectionClosed

from tests.server import YapServer
from tests.servers import PostgresCluster, RedisServer
from tests.wsclient import Client, client

SLOTS = 12
BUDGET = 10_000_000
EXACT_WITHIN_S = 5.0
_MAKE_KEYS = """
import json
from accounts.services import create_key
wanted = json.loads({wanted!r})
print(json.dumps({{name: create_key(name, **fields)[1] for name, fields in wanted.items()}}))
"""


def make_keys(server: YapServer, wanted: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Make keys in the database: name → the full key."""
    code = _MAKE_KEYS.format(wanted=json.dumps(wanted))
    return dict(json.loads(server.manage("shell", "-v", "0", "-c", code)))


@dataclass
class Answer:
    """How a connection was answered: ``pong`` or the code of the error, and after how many seconds."""

    code: str
    seconds: float


async def connect(server: YapServer, key: str) -> Answer:
    """Connect, wait for the answer, disconnect."""
    began = time.monotonic()
    async with client(server.ws_url, key) as yap:
        return await _first_answer(yap, began)


async def _first_answer(yap: Client, began: float) -> Answer:
    with suppress(ConnectionClosed):  # refused: the answer has been received already
        await yap.send("ping")
    frame = await yap.receive(60)
    return Answer(str(frame.get("error_code", frame["type"])), time.monotonic() - began)


class Held:
    """Connections that stay open."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self.open = 0

    async def add(self, server: YapServer, key: str) -> Answer:
        """Connect, and stay connected where the server admits it."""
        began = time.monotonic()
        yap = await self._stack.enter_async_context(client(server.ws_url, key))
        answer = await _first_answer(yap, began)
        self.open += answer.code == "pong"
        return answer

    async def add_within(self, server: YapServer, key: str, within_s: float) -> Answer:
        """Connect again until the server admits the connection, at most ``within_s`` seconds."""
        until = time.monotonic() + within_s
        while True:
            answer = await self.add(server, key)
            if answer.code == "pong" or time.monotonic() > until:
                return answer
            await asyncio.sleep(0.2)

    async def close(self) -> None:
        """Disconnect all."""
        await self._stack.aclose()
        self.open = 0


@dataclass
class Talker:
    """One client that streams one turn after the other, and what it saw."""

    server: YapServer
    key: str
    turns: int = 0
    tokens: int = 0
    longest_gap_s: float = 0.0
    longest_ack_s: float = 0.0
    errors: list[str] = field(default_factory=list)
    _stop: bool = False

    @property
    def prefix(self) -> str:
        return "env" if self.key == YapServer.api_key else self.key.split("_")[1]

    async def run(self) -> None:
        """Talk until :meth:`stop`, or until a turn is refused; the last turn is waited for."""
        async with client(self.server.ws_url, self.key) as yap:
            while not self._stop:
                last = time.monotonic()
                began, acknowledged = last, False
                await yap.start("Hello", history_text="")
                while True:
                    frame = await yap.receive(60)
                    now = time.monotonic()
                    self.longest_gap_s, last = max(self.longest_gap_s, now - last), now
                    if not acknowledged:
                        acknowledged, self.longest_ack_s = True, max(self.longest_ack_s, now - began)
                    if frame["type"] == "error":
                        self.errors.append(frame["error_code"])
                        if "turn" not in frame:
                            return
                    if frame["type"] == "done":
                        usage = frame["usage"]
                        self.turns += 1
                        self.tokens += sum(
                            usage[name]
                            for name in (
                                "prompt_tokens", "completion_tokens", "tool_prompt_tokens", "tool_completion_tokens",
                            )
                        )  # fmt: skip
                        break

    def stop(self) -> None:
        self._stop = True

    def forget(self) -> None:
        """Measure gaps from now on."""
        self.longest_gap_s = self.longest_ack_s = 0.0


class Pinger:
    """One idle connection that pings four times a second: how long the server's loop and receive loops take."""

    def __init__(self, server: YapServer, key: str) -> None:
        self._server, self._key = server, key
        self.longest_s = 0.0
        self.lag_s = 0.0
        """How late this process's own timers were: the machine was busy."""
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Ping until :meth:`stop`."""
        async with client(self._server.ws_url, self._key) as yap:
            while not self._stop.is_set():
                began = time.monotonic()
                await yap.ask("ping")
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                due = time.monotonic() + 0.25
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.25):
                        await self._stop.wait()
                self.lag_s = max(self.lag_s, time.monotonic() - due)

    def stop(self) -> None:
        self._stop.set()

    def forget(self) -> None:
        """Measure from now on."""
        self.longest_s = self.lag_s = 0.0


class World:
    """Servers, stores and keys. Conversations go on inside ``async with talking(...)``."""

    def __init__(
        self, servers: list[YapServer], redis_server: RedisServer, postgres: PostgresCluster, database: str
    ) -> None:
        self.a, self.b = servers
        self.servers = servers
        self.redis = redis_server
        self.postgres = postgres
        self.database = database
        self.keys: dict[str, str] = {}
        self.told: Counter[str] = Counter()  # key prefix → tokens that clients were told
        self.turns: Counter[str] = Counter()

    @property
    def env(self) -> str:
        return YapServer.api_key

    def count(self, talkers: list[Talker]) -> None:
        """Add what finished talkers were told."""
        for talker in talkers:
            self.told[talker.prefix] += talker.tokens
            self.turns[talker.prefix] += talker.turns
            talker.tokens = talker.turns = 0

    # -- what the stores hold ------------------------------------------------------------------------------------------

    def rows(self) -> dict[str, tuple[int, int]]:
        """Key prefix → turns and tokens in the usage rows."""
        with psycopg.connect(self.database, connect_timeout=5) as connection:
            found = connection.execute(
                "SELECT key_prefix, sum(turns), sum(prompt_tokens + completion_tokens + tool_prompt_tokens"
                " + tool_completion_tokens) FROM accounts_usage GROUP BY key_prefix"
            ).fetchall()
        return {prefix: (int(turns), int(tokens)) for prefix, turns, tokens in found if turns}

    def budget_of(self, prefix: str) -> int:
        """Tokens that Redis has for a key today, of all processes."""
        with redis.Redis.from_url(self.redis.url) as store:
            day = int(time.time() // 86_400)
            fields: dict[bytes, bytes] = store.hgetall(f"{{yap}}:tokens:{prefix}:{day}")
        base = int(fields.get(b"base", b"0:0").split(b":")[1])
        return base + sum(int(count) for name, count in fields.items() if name.startswith(b"s:"))

    def slots(self) -> int:
        """Slots that Redis has as taken."""
        with redis.Redis.from_url(self.redis.url) as store:
            return int(store.zcard("{yap}:slots"))

    async def until(self, so: Callable[[], Awaitable[bool]], within_s: float) -> float:
        """Seconds until it is so. Fails after the limit."""
        began = time.monotonic()
        while not await so():
            assert time.monotonic() - began < within_s, f"not so after {within_s} s"
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def exact(self, budgeted: list[str], connections: int = 0, within_s: float = EXACT_WITHIN_S) -> float:
        """Seconds until rows, budgets and slots are what clients saw. Fails after the limit, naming the difference."""
        began = time.monotonic()
        while True:
            differences = await asyncio.to_thread(self._differences, budgeted, connections)
            if not differences:
                return time.monotonic() - began
            assert time.monotonic() - began < within_s, f"after {within_s:g} s: {differences}"
            await asyncio.sleep(0.1)

    def _differences(self, budgeted: list[str], connections: int) -> dict[str, Any]:
        expected = {prefix: (self.turns[prefix], self.told[prefix]) for prefix in self.turns if self.turns[prefix]}
        pairs = {"rows": (self.rows(), expected), "slots": (self.slots(), connections)}
        for prefix in budgeted:
            pairs[f"budget {prefix}"] = (self.budget_of(prefix), self.told[prefix])
        return {name: f"{found} instead of {wanted}" for name, (found, wanted) in pairs.items() if found != wanted}

    def log_lines(self, server: YapServer, since: int, logger: str = "yap.dependency") -> list[str]:
        """Lines of one logger written behind a position of the log."""
        text = server.log.read_text(errors="replace")[since:]
        return [line.split(f"{logger} ", 1)[1] for line in text.splitlines() if f" {logger} " in line]

    def log_size(self, server: YapServer) -> int:
        return len(server.log.read_text(errors="replace"))

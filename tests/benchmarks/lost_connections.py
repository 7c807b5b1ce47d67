"""Measures the cost of a lost connection: survival, time to the next text, memory, and the copy in Redis.

    python -m tests.benchmarks.lost_connections [--server daphne|uvicorn] [--conversations 100]

The engines are fakes of a fixed pace, so that the figures are those of the server and of the client library.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest  # noqa: F401 - before tests.servers, which is a plugin of it
from redis import Redis
from websockets.asyncio.client import ClientConnection, connect

from accounts.redis_connection import SharedRedis
from accounts.redis_copies import RedisCopies
from inference.kept_sessions import KeptSessions
from inference.serving_context import ServingContext
from inference.session_copies import SessionCopies
from inference.session_record import SessionRecord, decode
from inference.session_state import SessionState
from tests.balancer import balancing
from tests.clients_suite.running import CLIENTS
from tests.fakes.engine import FakeEngine
from tests.fakes.serving import UNLIMITED, Line, make_serving
from tests.server import YapServer
from tests.servers import RedisServer

sys.path.insert(0, str(CLIENTS))
from tests.clients_suite.talker import ENVIRONMENT, SAID, Talker
from tests.security.conftest import fake_server

EXCHANGES = 20
COPIES = 300


async def long_session(serving: ServingContext, session_id: str) -> SessionState:
    """Return the state of a session with a history of :data:`EXCHANGES` exchanges."""
    line = Line(serving)
    for number in range(EXCHANGES):
        own = {
            "session_id": session_id,
            "user_utterance": f"{number}: how was your day by the sea, and what came of it?",
        }
        await line.turn(**own)
    return line.session._state


async def copies(url: str) -> dict[str, Any]:
    """Measure the copy of a session after a turn: time on the serving loop, time until Redis has all, size."""
    serving = await make_serving(FakeEngine(reply=SAID), None)
    shared = SharedRedis(url)
    shared.start()
    store = RedisCopies(shared, url, 60.0)

    def copies_of(serving: ServingContext) -> SessionCopies:
        return SessionCopies(store, "secret", lambda: serving.resolver)

    kept = KeptSessions(60.0, copies=copies_of(serving))
    state = await long_session(serving, "s")
    loop_us: list[float] = []
    written = store.written
    began = time.perf_counter()
    for _ in range(COPIES):
        thread = time.thread_time()
        kept.copy(UNLIMITED, state)
        loop_us.append((time.thread_time() - thread) * 1e6)
        written += 1
        async with asyncio.timeout(5):
            while store.written < written:  # noqa: ASYNC110 - another thread writes
                await asyncio.sleep(0)
    each_ms = (time.perf_counter() - began) / COPIES * 1000
    began = time.perf_counter()
    assert await KeptSessions(60.0, copies=copies_of(serving)).fetch(UNLIMITED, "s") is not None
    fetch_ms = (time.perf_counter() - began) * 1000
    with Redis.from_url(url) as client:
        size = max(client.strlen(key) for key in client.keys("*session*"))
    assert state.conversation is not None
    figures = {
        "history_tokens": state.conversation.tokens,
        "loop_us_p50": statistics.median(loop_us),
        "loop_us_p99": statistics.quantiles(loop_us, n=100)[98],
        "until_written_ms": each_ms,
        "fetch_ms": fetch_ms,
        "bytes_in_redis": size,
    }
    await store.aclose()
    await shared.aclose()
    await serving.engines.aclose()
    return figures


async def memory(sessions: int = 100) -> dict[str, Any]:
    """Measure the memory of a kept session."""
    serving = await make_serving(FakeEngine(reply=SAID), None)
    state, kept = await long_session(serving, "first"), KeptSessions(60.0)
    await serving.engines.aclose()
    record = SessionRecord.of(state, serving.resolver.encoder.fingerprint)
    assert record is not None
    data = record.encode()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(sessions):  # the engine of the test would keep prompts of real turns
        own = decode(data, serving.resolver)
        own.session_id = f"s{number}"
        kept.put(UNLIMITED, own)
    used = (tracemalloc.get_traced_memory()[0] - before) / sessions
    tracemalloc.stop()
    return {"tokens": kept.tokens // len(kept), "bytes": round(used)}


async def _text(line: ClientConnection) -> float:
    """Wait for the next text; returns the time."""
    while json.loads(await line.recv())["type"] != "token":
        pass
    return time.perf_counter()


async def next_text(url: str, repeat: int = 25) -> dict[str, Any]:
    """Measure the time to the next text: a turn on a connection that stayed, and both ways back after a loss."""
    start = {"type": "start", "gender": "female", "personality": "calm", "chat_prompt": "You are Ada."}
    headers = {"X-API-Key": YapServer.api_key}
    stayed, resumed, after_resume, restarted = [], [], [], []
    for number in range(repeat):
        message = json.dumps({**start, "session_id": f"n{number}", "user_utterance": "hi"})
        async with connect(url, additional_headers=headers) as line:
            await line.send(message)
            await _text(line)
            while json.loads(await line.recv())["type"] != "done":
                pass
            began = time.perf_counter()
            await line.send(message)
            stayed.append(await _text(line) - began)
            line.transport.abort()
        await asyncio.sleep(0.02)
        resume = {"type": "resume", "session_id": f"n{number}", "turn": 2, "received": 0}
        began = time.perf_counter()
        async with connect(url, additional_headers=headers) as line:
            sent = time.perf_counter()
            await line.send(json.dumps(resume))
            text = await _text(line)
            resumed.append(text - began)
            after_resume.append(text - sent)
            line.transport.abort()
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        async with connect(url, additional_headers=headers) as line:
            await line.send(message)
            restarted.append(await _text(line) - began)
    rows = {"stayed": stayed, "resumed": resumed, "resume_message": after_resume, "start_again": restarted}
    return {f"{name}_ms_p50": statistics.median(values) * 1000 for name, values in rows.items()}


async def survival(port: int, conversations: int) -> dict[str, Any]:
    """Break the connection of each conversation once, at a random moment, and count those that lose nothing."""
    dice, at_once = random.Random(19), asyncio.Semaphore(10)

    async def survives(wait_s: float) -> bool:
        async with at_once, balancing(port) as balancer:
            talker = Talker(balancer)
            await talker.say("first")
            asyncio.get_running_loop().call_later(wait_s, balancer.drop, balancer.open[-1])
            await talker.say("second")
            await talker.say("third")
            await talker.dialogue.close()
            return talker.texts == [SAID] * 3 and not talker.fallbacks and balancer.dropped == 1

    survived = await asyncio.gather(*(survives(dice.random() * 0.5) for _ in range(conversations)))
    return {"conversations": conversations, "survived": sum(survived)}


async def measure(kind: str, conversations: int) -> dict[str, Any]:
    """Return all figures."""
    figures: dict[str, Any] = {"server": kind, "memory": await memory()}
    with tempfile.TemporaryDirectory() as folder:
        redis = RedisServer(Path(folder))
        redis.start()
        server = fake_server(Path(folder) / "run", **ENVIRONMENT, SERVER=kind, REDIS_URL=redis.url)
        try:
            figures["copy"] = await copies(redis.url)
            print(json.dumps(figures), file=sys.stderr)
            await asyncio.to_thread(server.prepare)
            await asyncio.to_thread(server.start, 90)
            figures["next_text"] = await next_text(server.ws_url)
            print(json.dumps(figures), file=sys.stderr)
            figures["drops"] = await survival(server.port, conversations)
        finally:
            await asyncio.to_thread(server.stop)
            redis.stop()
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=("daphne", "uvicorn"), default="daphne")
    parser.add_argument("--conversations", type=int, default=100, help="conversations that lose their connection once")
    given = parser.parse_args()
    figures = asyncio.run(measure(given.server, given.conversations))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()

"""Two server processes with one Redis: a stored response is continued by the process that did not make it."""

from __future__ import annotations

import asyncio
import time

import redis
from openai import AsyncOpenAI, BadRequestError

from tests.engine.waiting import until
from tests.security.conftest import SERVERS, StartServer
from tests.server import YapServer
from tests.servers import RedisServer

SAID = "Hello there, how are you today?"
KEEP_S = 60
SHARED = {
    "SECRET_KEY": "of-both-" + 50 * "x", "DEPLOY_MODELS": "chat", "SESSION_KEEP_S": str(KEEP_S),
    "WS_MAX_MESSAGES_PER_WINDOW": "0",
}  # fmt: skip


def client_of(server: YapServer) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{server.origin}/v1", api_key=server.api_key, max_retries=0, timeout=20)


async def created(server: YapServer, previous: str | None = None) -> str:
    """Return the id of a new response."""
    async with client_of(server) as client:
        answer = await client.responses.create(model="mia", input="hi", previous_response_id=previous)
        assert answer.output_text == SAID
        return answer.id


async def is_unknown(server: YapServer, name: str) -> bool:
    try:
        await created(server, name)
    except BadRequestError as error:
        return error.code == "previous_response_not_found"
    return False


async def test_a_response_is_continued_by_the_other_process(start_fake: StartServer, own_redis: RedisServer) -> None:
    start = [asyncio.to_thread(start_fake, REDIS_URL=own_redis.url, SERVER=kind, **SHARED) for kind in SERVERS]
    one, other = await asyncio.gather(*start)
    with redis.Redis.from_url(own_redis.url) as store:

        def copies() -> list[bytes]:
            return list(store.keys("*response*"))

        first = await created(one)
        await until(lambda: len(copies()) == 1)
        second = await created(other, first)
        await until(lambda: len(copies()) == 2)
        async with client_of(one) as client, client.responses.connect() as line:
            await line.response.create(model="mia", input="and now?", previous_response_id=second)
            async with asyncio.timeout(20):
                async for event in line:
                    if event.type in ("response.completed", "error"):
                        break
        assert event.type == "response.completed"
        await until(lambda: len(copies()) == 3)
        assert all(0 < store.pttl(key) <= KEEP_S * 1000 for key in copies())
    own_redis.freeze()
    try:
        began = time.monotonic()
        assert await is_unknown(other, event.response.id)
        assert time.monotonic() - began < 5
    finally:
        own_redis.thaw()
    async with asyncio.timeout(20):
        while await is_unknown(other, event.response.id):
            pass

"""The Redis client of this room: quick to give up, because callers go on without it."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

TIMEOUT_S = 0.5


def connect(url: str) -> Redis:
    """A client for ``url``. One retry, for a connection that had gone stale; every script here may be sent twice."""
    return Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 1))

"""Wrong keys counted for all processes together, in a real Redis that may fail."""

from __future__ import annotations

import time
from itertools import count

import pytest
import redis

from accounts import redis_key_guesses
from accounts.key_guesses import TooManyWrongKeys, WrongKeyCounter
from accounts.redis_key_guesses import RedisKeyGuesses
from tests.servers import RedisServer

LIMIT = 3


def process(url: str, window_s: float = 60.0) -> WrongKeyCounter:
    """The counter of one process."""
    counter = WrongKeyCounter(LIMIT)
    counter.shared = RedisKeyGuesses(url, LIMIT, window_s)
    return counter


@pytest.fixture
def two(redis_server: str) -> tuple[WrongKeyCounter, WrongKeyCounter]:
    return process(redis_server), process(redis_server)


def refused(counter: WrongKeyCounter, network: str = "10.0.0.1", *, right: bool = True) -> int | None:
    """The seconds to wait; None for a guess that was looked at."""
    try:
        counter.guessed(network, right=right)
    except TooManyWrongKeys as error:
        return error.retry_in
    return None


def test_processes_count_together(two: tuple[WrongKeyCounter, WrongKeyCounter]) -> None:
    one, other = two
    assert refused(one, right=False) is None
    assert refused(other, right=False) is None
    assert refused(one) is None  # a right key is not counted
    assert refused(one, right=False) is None
    for counter in two:
        wait = refused(counter)
        assert wait is not None
        assert 1 <= wait <= 60
        assert refused(counter, "10.0.0.2") is None


def test_a_window_ends(redis_server: str) -> None:
    one, other = process(redis_server, 0.3), process(redis_server, 0.3)
    for _ in range(LIMIT):
        assert refused(one, right=False) is None
    assert refused(other) == 1
    began = time.monotonic()
    while refused(other) is not None:
        assert time.monotonic() - began < 5
        time.sleep(0.05)
    with redis.Redis.from_url(redis_server) as client:
        assert client.keys("*wrong-keys*") == []


def test_without_redis_each_process_counts_alone_and_nobody_waits(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_key_guesses, "RETRY_S", 0.3)
    counter = process(own_redis.url)
    assert refused(counter, right=False) is None
    own_redis.freeze()
    began = time.monotonic()
    for _ in range(LIMIT - 1):
        assert refused(counter, right=False) is None
    assert refused(counter) is not None
    assert time.monotonic() - began < 0.5 + 0.3  # one question, and a busy machine
    own_redis.thaw()
    began = time.monotonic()
    for number in count():  # until all count together again
        for _ in range(LIMIT):
            refused(counter, f"10.0.1.{number}", right=False)
        if refused(process(own_redis.url), f"10.0.1.{number}") is not None:
            return
        assert time.monotonic() - began < 5
        time.sleep(0.05)

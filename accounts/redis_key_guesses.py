"""Wrong keys counted in Redis, for all processes together. See :mod:`accounts.key_guesses`."""

from __future__ import annotations

import hashlib
import logging
import time

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from accounts.key_guesses import WINDOW_S, WRONG_KEYS, TooManyWrongKeys
from accounts.redis_connection import connection_options

logger = logging.getLogger("yap.dependency")

RETRY_S = 1.0
"""Seconds for which Redis is not asked after it did not answer: each process counts alone meanwhile."""

# Both run in Redis in one step. A window begins with its first wrong key and ends by itself.
_GUESSED = """
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
if count >= tonumber(ARGV[1]) then return redis.call('PTTL', KEYS[1]) end
if ARGV[3] == '0' then
  redis.call('INCR', KEYS[1])
  if count == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
end
return 0
"""


class RedisKeyGuesses:
    """At most ``limit`` wrong keys of one network in a window of ``window_s`` seconds. Any thread may call.

    A question to Redis takes at most twice its socket's time limit. Where Redis does not answer, nothing is counted
    here for :data:`RETRY_S`.

    Args:
        url: ``redis://…``.
    """

    def __init__(self, url: str, limit: int = WRONG_KEYS, window_s: float = WINDOW_S) -> None:
        self._client = Redis.from_url(url, retry=Retry(NoBackoff(), 0), **connection_options())
        self._guessed = self._client.register_script(_GUESSED)
        self._limit = limit
        self._window_ms = int(window_s * 1000)
        self._away_until = 0.0  # time.monotonic()

    def guessed(self, network: str, *, right: bool) -> None:
        """See :class:`accounts.key_guesses.SharedCounter`.

        Raises:
            TooManyWrongKeys: The network has used up the attempts of all processes.
        """
        if time.monotonic() < self._away_until:
            return
        try:
            wait_ms = int(self._guessed(keys=[_name(network)], args=[self._limit, self._window_ms, int(right)]))
        except (RedisError, OSError) as error:
            self._away_until = time.monotonic() + RETRY_S
            # The connection of slots and budgets tells the operator that Redis is away.
            logger.debug("redis counts no wrong keys now: %s", type(error).__name__)
            return
        if wait_ms > 0:
            raise TooManyWrongKeys(wait_ms // 1000 + 1)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _name(network: str) -> str:
    return f"{{yap}}:wrong-keys:{hashlib.sha256(network.encode('utf-8', 'replace')).hexdigest()[:32]}"

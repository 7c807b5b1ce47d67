"""Counts password attempts, in the shared cache: by network and account, by network, and by account.

The limit by account is slow and does not lock its owner out: past it, networks from which the account has logged in
before go on as usual, and all others together have one attempt a minute.
"""

from __future__ import annotations

import hashlib

from django.core.cache import cache
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from redis.exceptions import RedisError

WINDOW_S = 300
PER_NETWORK_AND_ACCOUNT = 5
PER_NETWORK = 30
ACCOUNT_WINDOW_S = 3600
PER_ACCOUNT = 50
SLOT_S = 60  # past PER_ACCOUNT, strangers have one attempt in this time
KNOWN_FOR_S = 30 * 24 * 3600  # how long a network counts as known after a login

# Used while the shared cache does not answer: an operator must be able to log in all the same.
_local = LocMemCache("login", {"OPTIONS": {"MAX_ENTRIES": 100_000}})


class TooManyAttempts(Exception):
    """The next attempt is allowed after ``retry_in`` seconds at the latest. The password was not looked at."""

    def __init__(self, retry_in: int) -> None:
        super().__init__(f"Too many attempts. Try again in {retry_in // 60} minute{'' if retry_in < 120 else 's'}.")
        self.retry_in = retry_in


def count_attempt(network: str, account: str) -> None:
    """Count one attempt, before its password is looked at.

    Args:
        network: Where it comes from, as :func:`accounts.addresses.network_of` returns it.
        account: The user name as it was typed.

    Raises:
        TooManyAttempts: The attempt must not be looked at.
    """
    try:
        _count_attempt(cache, network, account.casefold())
    except (RedisError, OSError):
        _count_attempt(_local, network, account.casefold())


def forget_attempts(network: str, account: str) -> None:
    """The password was right: clear the pair's count and remember the network as one of the account's own."""
    pair = _name("pair", network, account.casefold())
    _local.delete(pair)
    try:
        cache.delete(pair)
        cache.set(_name("known", network, account.casefold()), True, KNOWN_FOR_S)
    except (RedisError, OSError):
        return


def _count_attempt(store: BaseCache, network: str, account: str) -> None:
    if _count(store, _name("network", network), WINDOW_S) > PER_NETWORK:
        raise TooManyAttempts(WINDOW_S)
    if _count(store, _name("pair", network, account), WINDOW_S) > PER_NETWORK_AND_ACCOUNT:
        raise TooManyAttempts(WINDOW_S)
    if _count(store, _name("account", account), ACCOUNT_WINDOW_S) <= PER_ACCOUNT:
        return
    if not store.get(_name("known", network, account)) and not store.add(_name("slot", account), True, SLOT_S):
        raise TooManyAttempts(SLOT_S)


def _count(store: BaseCache, name: str, window_s: int) -> int:
    store.add(name, 0, window_s)
    try:
        return store.incr(name)
    except ValueError:  # it expired between the two lines
        store.set(name, 1, window_s)
        return 1


def _name(kind: str, *parts: str) -> str:
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()
    return f"login:{kind}:{digest}"

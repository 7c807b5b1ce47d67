"""The callers that the server knows, at connect and while they are connected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.contrib.auth.models import User

from accounts import keys, services
from accounts.callers import Caller
from accounts.key_guesses import WRONG_KEYS, TooManyWrongKeys, wrong_keys
from accounts.redis_key_guesses import RedisKeyGuesses
from tests.accounts.conftest import DEFAULTS
from tests.fakes.serving import UNLIMITED
from tests.servers import RedisServer
from yapserver import trial_tickets
from yapserver.caller_source import CallerSource

OWN = "hV7tq2mLr9wZc4nBd8fK"
SOURCE = CallerSource(DEFAULTS, OWN)


def now_of(caller: Caller) -> Caller | None:
    return SOURCE.current([caller])[caller]


@pytest.mark.django_db
def test_a_ticket_ends_at_its_time_and_the_servers_own_key_never() -> None:
    operator = User.objects.create_superuser("operator")
    caller = trial_tickets.find_caller(trial_tickets.mint(operator.pk, "ada"), DEFAULTS)
    assert caller is not None
    assert now_of(caller) is caller
    assert now_of(replace(caller, expires_at=time.time() - 0.1)) is None
    assert now_of(UNLIMITED) is UNLIMITED


@pytest.mark.django_db
@pytest.mark.parametrize("change", [{"is_active": False}, {"is_staff": False}, {"is_superuser": False}])
def test_a_ticket_ends_with_its_operators_rights(change: dict[str, bool]) -> None:
    operator = User.objects.create_superuser("operator")
    caller = trial_tickets.find_caller(trial_tickets.mint(operator.pk, "ada"), DEFAULTS)
    assert caller is not None
    User.objects.filter(pk=operator.pk).update(**change)
    assert now_of(caller) is None


@pytest.mark.django_db
def test_a_key_is_as_its_row_is_now() -> None:
    row, full = services.create_key("customer")
    caller = Caller(row.pk, row.prefix, row.name, DEFAULTS, fingerprint=row.hash)
    now = now_of(caller)
    assert now is not None
    assert now.limits.messages.limit == DEFAULTS.messages.limit
    row.max_messages = 1
    services.save_key(row)
    now = now_of(caller)
    assert now is not None
    assert now.limits.messages.limit == 1
    services.revoke_key(row)
    assert now_of(caller) is None
    assert full not in repr(now)


@pytest.fixture(autouse=True)
def no_guesses() -> Iterator[None]:
    wrong_keys.clear()
    yield
    wrong_keys.clear()


async def test_the_servers_own_key_needs_no_database() -> None:
    found = await SOURCE.in_memory(OWN, "127.0.0.1")
    assert found is not None
    assert (found.key_id, found.name) == (None, "TEXT_API_KEY")
    assert await SOURCE.in_memory("wrong", "127.0.0.1") is None
    assert await CallerSource(DEFAULTS, None).in_memory(OWN, "127.0.0.1") is None


async def test_the_servers_own_key_may_have_the_form_of_a_database_key() -> None:
    own = keys.mint().full
    source = CallerSource(DEFAULTS, own)
    found = await source.in_memory(own, "127.0.0.1")
    assert found is not None
    assert found.name == "TEXT_API_KEY"
    assert await source.in_memory(keys.mint().full, "127.0.0.1") is None


async def test_guesses_of_the_servers_own_key_are_counted_and_then_not_looked_at() -> None:
    for _ in range(WRONG_KEYS):
        assert await SOURCE.in_memory("guess", "10.1.1.1") is None
    with pytest.raises(TooManyWrongKeys):
        await SOURCE.in_memory(OWN, "10.1.1.1")
    assert await SOURCE.in_memory(OWN, "10.1.1.2") is not None


async def test_a_crowd_of_guesses_at_once_has_no_more_attempts() -> None:
    guesses = (SOURCE.in_memory(f"guess {n}", "10.1.1.1") for n in range(100))
    answers = await asyncio.gather(*guesses, return_exceptions=True)
    assert sum(answer is None for answer in answers) == WRONG_KEYS


async def test_the_servers_own_key_does_not_wait_for_a_frozen_redis(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = RedisKeyGuesses(own_redis.url)
    monkeypatch.setattr(wrong_keys, "shared", shared)
    await SOURCE.in_memory(OWN, "10.1.1.1")
    own_redis.freeze()
    began = time.monotonic()
    assert await SOURCE.in_memory(OWN, "10.1.1.1") is not None
    assert time.monotonic() - began < 0.15
    own_redis.thaw()
    shared.close()


@pytest.mark.django_db
def test_tickets_and_database_keys_are_admitted_from_a_network_that_guesses() -> None:
    operator = User.objects.create_superuser("operator")
    ticket = trial_tickets.mint(operator.pk, "ada")

    async def present() -> None:
        for _ in range(WRONG_KEYS):
            await SOURCE.in_memory("guess", "10.1.1.1")
        for _ in range(WRONG_KEYS + 1):
            for key in (ticket, "try.forged", keys.mint().full):
                assert await SOURCE.in_memory(key, "10.1.1.1") is None

    asyncio.run(present())
    assert SOURCE.in_database(ticket) is not None
    assert SOURCE.in_database("try.forged") is None

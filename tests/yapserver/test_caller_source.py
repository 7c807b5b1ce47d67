"""The callers that the server knows, at connect and while they are connected."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from django.contrib.auth.models import User

from accounts import services
from accounts.callers import Caller
from accounts.key_guesses import WRONG_KEYS, TooManyWrongKeys, wrong_keys
from tests.accounts.conftest import DEFAULTS
from tests.fakes.serving import UNLIMITED
from yapserver import trial_tickets
from yapserver.caller_source import CallerSource

SOURCE = CallerSource(DEFAULTS, "hV7tq2mLr9wZc4nBd8fK")


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


def test_the_servers_own_key_needs_no_database() -> None:
    found = SOURCE.in_memory("hV7tq2mLr9wZc4nBd8fK", "127.0.0.1")
    assert found is not None
    assert (found.key_id, found.name) == (None, "TEXT_API_KEY")
    assert SOURCE.in_memory("wrong", "127.0.0.1") is None
    assert CallerSource(DEFAULTS, None).in_memory("hV7tq2mLr9wZc4nBd8fK", "127.0.0.1") is None


@pytest.mark.django_db
def test_guesses_of_the_servers_own_key_are_counted_and_then_not_looked_at() -> None:
    wrong_keys.clear()
    try:
        for _ in range(WRONG_KEYS):
            assert SOURCE.in_memory("guess", "10.1.1.1") is None
            assert SOURCE.in_database("guess", "10.1.1.1") is None
        with pytest.raises(TooManyWrongKeys):
            SOURCE.in_memory("hV7tq2mLr9wZc4nBd8fK", "10.1.1.1")
        assert SOURCE.in_memory("hV7tq2mLr9wZc4nBd8fK", "10.1.1.2") is not None
    finally:
        wrong_keys.clear()

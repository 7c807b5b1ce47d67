from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import services
from accounts.callers import Caller, Window
from accounts.keys import ENV_PREFIX, mint
from accounts.models import ApiKey
from accounts.selectors import callers_now, find_caller
from personas.models import Persona
from tests.accounts.conftest import DEFAULTS

pytestmark = pytest.mark.django_db


def find(key: str, text_api_key: str | None = None) -> Caller | None:
    return find_caller(key, DEFAULTS, text_api_key)


def now(caller: Caller) -> Caller | None:
    return callers_now([caller], DEFAULTS)[caller]


def make(**fields: Any) -> tuple[ApiKey, str]:
    return services.create_key("customer", **fields)


def persona(slug: str) -> Persona:
    return Persona.objects.create(slug=slug, name=slug, gender="male", personality="dry", chat_prompt="Hi.")


def test_a_key_without_limits_gets_the_servers() -> None:
    row, full = make()
    found = find(full)
    assert found is not None
    assert (found.key_id, found.prefix, found.name, found.limits) == (row.pk, row.prefix, "customer", DEFAULTS)
    assert found.personas is None
    assert found.expires_at is None


def test_its_own_limits_win_where_they_are_set_zero_included() -> None:
    _, full = make(max_messages=0, cancel_window_s=5, max_connections=2, tokens_per_day=100, max_out=7)
    found = find(full)
    assert found is not None
    assert found.limits.messages == Window(0, 60.0)
    assert found.limits.cancels == Window(10, 5.0)
    assert (found.limits.connections, found.limits.tokens_per_day, found.limits.max_out) == (2, 100, 7)


def test_one_query_also_with_personas() -> None:
    _, full = make(personas=[persona("ada"), persona("bob")], allow_own_chat_prompt=False)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        found = find_caller(full, DEFAULTS, None)
    assert len(queries) == 1
    assert found is not None
    assert found.personas == frozenset({"ada", "bob"})
    assert (found.own_chat_prompt, found.own_tool_prompt) == (False, True)


def test_what_is_no_key_costs_no_query() -> None:
    with CaptureQueriesContext(connection) as queries:
        assert find("nonsense") is None
        assert find("yap_'; DROP TABLE accounts_apikey; --") is None
    assert len(queries) == 0


def test_unknown_prefix_and_wrong_secret() -> None:
    row, _ = make()
    assert find(mint().full) is None
    assert find(mint(row.prefix).full) is None


def test_the_key_from_the_environment_stands_beside() -> None:
    _, full = make()
    found = find("a key of the environment", "a key of the environment")
    assert found is not None
    assert (found.key_id, found.prefix, found.limits) == (None, ENV_PREFIX, DEFAULTS)
    assert find(full, "a key of the environment") is not None
    assert find("", None) is None
    assert find("", "") is None


def test_expired_and_revoked() -> None:
    row, full = make(expires_at=timezone.now() + timedelta(hours=1))
    found = find(full)
    assert found is not None
    assert row.expires_at is not None
    assert found.expires_at == row.expires_at.timestamp()
    ApiKey.objects.update(expires_at=timezone.now())
    assert find(full) is None
    ApiKey.objects.update(expires_at=None)
    assert find(full) is not None
    services.revoke_key(row)
    assert find(full) is None


def test_a_rotated_secret_is_good_until_its_time_and_its_connections_end_with_it() -> None:
    row, old = make()
    connected = find(old)
    assert connected is not None
    until = timezone.now() + timedelta(hours=1)
    new = services.rotate_key(row, until)

    fresh = find(new)
    assert fresh is not None
    assert fresh.expires_at is None
    for still in (find(old), now(connected)):
        assert still is not None
        assert still.expires_at == until.timestamp()
    assert now(fresh) == fresh

    ApiKey.objects.update(previous_until=timezone.now())
    assert find(old) is None
    assert now(connected) is None
    assert find(new) is not None


def test_a_live_connection_reads_its_limits_anew() -> None:
    row, full = make(max_messages=5)
    connected = find(full)
    assert connected is not None
    assert now(connected) == connected
    row.max_messages = 9
    services.save_key(row)
    again = now(connected)
    assert again is not None
    assert again.limits.messages.limit == 9
    services.revoke_key(row)
    assert now(connected) is None
    assert now(replace(connected, key_id=row.pk + 1)) is None


def test_the_fingerprint_is_not_in_what_is_printed() -> None:
    _, full = make()
    found = find(full)
    assert found is not None
    assert found.fingerprint
    assert found.fingerprint not in repr(found)
